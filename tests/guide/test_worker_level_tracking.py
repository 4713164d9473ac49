"""User guide, "Worker-Level Tracking"."""

from __future__ import annotations

import anyio
import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker

pytestmark = pytest.mark.virtual_time


async def work(x: int) -> int:
    await anyio.sleep(1)
    return x


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


async def test_utilization_and_balance_can_be_computed_from_the_metrics() -> None:
    pipeline = Pipeline([Stage("A", 4, [work])])
    await pipeline.run(range(8))
    metrics = pipeline.get_worker_metrics().values()
    assert [worker.items_processed for worker in metrics] == [2, 2, 2, 2]


async def test_errors_can_be_grouped_by_worker() -> None:
    async def fail(x: int) -> int:
        await anyio.sleep(1)
        raise ValueError

    tracker = StatusTracker()
    pipeline = Pipeline([Stage("A", 2, [fail], task_attempts=1)], status_tracker=tracker)
    await pipeline.run(range(4))
    by_worker = sorted(str(event.worker) for event in tracker.get_by_status("failed"))
    assert by_worker == ["A-W0", "A-W0", "A-W1", "A-W1"]
    assert [worker.items_failed for worker in pipeline.get_worker_metrics().values()] == [2, 2]
