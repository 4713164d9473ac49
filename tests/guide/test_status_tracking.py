"""User guide, "Status Tracking": basic, real-time, task-level, limits, queries, status types."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import Pipeline, Stage, StatusEvent, StatusTracker, TaskEvent


async def risky(x: int) -> int:
    await checkpoint()
    if x == 3:
        raise ValueError("three")
    return x


def stage(**arguments: Any) -> Stage:
    arguments = {"task_attempts": 2, "task_wait_seconds": 0, **arguments}
    return Stage(name="ProcessStage", workers=3, tasks=[risky], **arguments)


async def test_get_stats_counts_completed_and_failed() -> None:
    tracker = StatusTracker()
    await Pipeline(stages=[stage()], status_tracker=tracker).run(range(10))
    stats = tracker.get_stats()
    assert (stats["completed"], stats["failed"]) == (9, 1)
    assert set(stats) == {"queued", "in_progress", "completed", "failed", "retrying", "skipped"}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_on_status_change_is_called_for_every_change(kind: str) -> None:
    lines: list[str] = []

    def on_status_change(event: StatusEvent) -> None:
        lines.append(f"{event.status.upper()}: Item {event.item_id} @ {event.stage}")
        if event.status == "failed":
            lines.append(f"  Error: {event.metadata.get('error')}")
        elif event.status == "in_progress":
            lines.append(f"  Worker: {event.worker}")

    async def on_status_change_async(event: StatusEvent) -> None:
        await checkpoint()
        on_status_change(event)

    callback = on_status_change if kind == "sync" else on_status_change_async
    tracker = StatusTracker(on_status_change=callback)
    await Pipeline(stages=[stage()], status_tracker=tracker).run([3])
    assert lines == [
        "QUEUED: Item 0 @ ProcessStage",
        "IN_PROGRESS: Item 0 @ ProcessStage",
        "  Worker: ProcessStage-W0",
        "FAILED: Item 0 @ ProcessStage",
        "  Error: three",
    ]


async def test_the_four_task_events_and_their_fields() -> None:
    events: dict[str, list[TaskEvent]] = {"start": [], "complete": [], "retry": [], "fail": []}
    tracker = StatusTracker(
        on_task_start=events["start"].append,
        on_task_complete=events["complete"].append,
        on_task_retry=events["retry"].append,
        on_task_fail=events["fail"].append,
    )
    await Pipeline([stage()], status_tracker=tracker).run([1, 3])
    assert {kind: len(received) for kind, received in events.items()} == {
        "start": 3,
        "complete": 1,
        "retry": 1,
        "fail": 1,
    }
    for kind, received in events.items():
        for event in received:
            assert event.event_type == kind
            assert (event.stage, event.task_name) == ("ProcessStage", "risky")
            assert event.worker.startswith("ProcessStage-W")
            assert event.attempt >= 1
            assert event.timestamp > 0
            assert (event.error is None) == (kind in ("start", "complete"))
            assert (event.duration is None) == (kind == "start")
    (retry,), (fail,) = events["retry"], events["fail"]
    assert (retry.item_id, retry.attempt, fail.attempt) == (1, 1, 2)


async def test_a_tracker_with_concurrency_limits_and_value_callbacks() -> None:
    running = 0
    maximum = 0

    async def fetch_data(x: int) -> int:
        nonlocal running, maximum
        running += 1
        maximum = max(maximum, running)
        for _ in range(20):
            await checkpoint()
        running -= 1
        return await risky(x)

    async def process_data(x: int) -> int:
        return x

    succeeded: list[Any] = []
    failed: list[Any] = []

    async def handle_success(item_id: Any, value: Any, payload: dict[str, Any]) -> None:
        succeeded.append((item_id, value))

    async def handle_failure(item_id: Any, error: Exception, payload: dict[str, Any]) -> None:
        failed.append((item_id, str(error)))

    tracker = StatusTracker(
        task_concurrency_limits={"fetch_data": 5, "process_data": 20},
        on_success=handle_success,
        on_failure=handle_failure,
    )
    etl = Stage(
        name="ETL",
        workers=50,
        tasks=[fetch_data, process_data],
        retry="per_task",
        task_attempts=3,
        task_wait_seconds=0,
    )
    await Pipeline(stages=[etl], status_tracker=tracker).run(range(100))
    assert maximum == 5
    assert sorted(succeeded) == [(x, x) for x in range(100) if x != 3]
    assert failed == [(3, "three")]


async def test_an_item_that_waits_for_a_limit_is_in_progress() -> None:
    gate = anyio.Event()

    async def fetch_data(x: int) -> int:
        await gate.wait()
        return x

    limited = Stage("A", 4, [fetch_data], task_concurrency_limits={"fetch_data": 1})
    pipeline = Pipeline([limited])
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.run, range(9))
        await anyio.wait_all_tasks_blocked()
        assert pipeline.get_stats().stage_stats["A"].in_progress_items == 4
        gate.set()


async def test_the_status_of_an_item_can_be_queried() -> None:
    tracker = StatusTracker()
    await Pipeline([stage()], status_tracker=tracker).run(range(5))
    status = tracker.get_status(item_id=4)
    assert status is not None
    assert (status.status, status.stage) == ("completed", "ProcessStage")
    assert [(e.item_id, e.metadata["error"]) for e in tracker.get_by_status("failed")] == [
        (3, "three")
    ]
    history = tracker.get_history(item_id=4)
    assert [event.status for event in history] == ["queued", "in_progress", "completed"]
    assert [event.timestamp for event in history] == sorted(e.timestamp for e in history)


async def test_the_status_of_a_failed_item_has_its_stage_and_error() -> None:
    tracker = StatusTracker()
    await Pipeline([stage()], status_tracker=tracker).run([3])
    event = tracker.get_status(0)
    assert event is not None
    assert (event.stage, event.metadata["error"]) == ("ProcessStage", "three")
