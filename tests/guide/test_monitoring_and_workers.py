"""User guide, "Monitoring Strategies" and "Worker-Level Tracking"."""

from __future__ import annotations

import anyio
import pytest

from antflow import Pipeline, PipelineStats, Stage, StatusEvent, StatusTracker

pytestmark = pytest.mark.virtual_time


async def work(x: int) -> int:
    await anyio.sleep(1)
    return x


async def test_callbacks_react_to_status_changes_immediately() -> None:
    began = anyio.current_time()
    told: list[tuple[str, float]] = []

    async def on_status_change(event: StatusEvent) -> None:
        told.append((event.status, round(anyio.current_time() - began, 6)))

    tracker = StatusTracker(on_status_change=on_status_change)
    await Pipeline(stages=[Stage("A", 1, [work])], status_tracker=tracker).run([1])
    assert told == [("queued", 0), ("in_progress", 0), ("completed", 1)]


async def test_a_loop_can_poll_the_statistics_while_a_run_is_on() -> None:
    seen: list[PipelineStats] = []
    pipeline = Pipeline([Stage("A", 2, [work]), Stage("B", 1, [work])])

    async def monitor_loop() -> None:
        while True:
            seen.append(pipeline.get_stats())
            await anyio.sleep(0.7)

    async with anyio.create_task_group() as group:
        group.start_soon(monitor_loop)
        await pipeline.run(range(4))
        group.cancel_scope.cancel()
    processed = [stats.items_processed for stats in seen]
    assert processed == sorted(processed)
    assert 0 < processed[-1] < 4
    for stats in seen:
        assert stats.items_in_flight == sum(
            stage.pending_items + stage.in_progress_items for stage in stats.stage_stats.values()
        )


async def test_workers_have_unique_ids_from_0_to_n_minus_1() -> None:
    ids: set[int | None] = set()

    async def on_status_change(event: StatusEvent) -> None:
        if event.status in ("in_progress", "completed"):
            ids.add(event.worker_id)
            assert event.worker == f"A-W{event.worker_id}"

    tracker = StatusTracker(on_status_change=on_status_change)
    pipeline = Pipeline(stages=[Stage("A", 4, [work])], status_tracker=tracker)
    await pipeline.run(range(8))
    assert ids == {0, 1, 2, 3}
    assert tracker.callback_errors == 0
    assert pipeline.get_worker_names() == {"A": ["A-W0", "A-W1", "A-W2", "A-W3"]}


async def test_utilisation_and_balance_can_be_worked_out_from_the_metrics() -> None:
    pipeline = Pipeline([Stage("A", 4, [work])])
    await pipeline.run(range(8))
    metrics = pipeline.get_worker_metrics().values()
    assert [one.items_processed for one in metrics] == [2, 2, 2, 2]


async def test_errors_can_be_told_by_worker() -> None:
    async def fail(x: int) -> int:
        await anyio.sleep(1)
        raise ValueError

    tracker = StatusTracker()
    pipeline = Pipeline([Stage("A", 2, [fail], task_attempts=1)], status_tracker=tracker)
    await pipeline.run(range(4))
    by_worker = sorted(str(event.worker) for event in tracker.get_by_status("failed"))
    assert by_worker == ["A-W0", "A-W0", "A-W1", "A-W1"]
    assert [one.items_failed for one in pipeline.get_worker_metrics().values()] == [2, 2]
