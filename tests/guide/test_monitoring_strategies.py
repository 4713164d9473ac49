"""User guide, "Monitoring Strategies"."""

from __future__ import annotations

import anyio
import pytest

from antflow import Pipeline, PipelineStats, Stage, StatusEvent, StatusTracker

pytestmark = pytest.mark.virtual_time


async def work(x: int) -> int:
    await anyio.sleep(1)
    return x


async def test_callbacks_are_called_at_each_status_change() -> None:
    started = anyio.current_time()
    received: list[tuple[str, float]] = []

    async def on_status_change(event: StatusEvent) -> None:
        received.append((event.status, round(anyio.current_time() - started, 6)))

    tracker = StatusTracker(on_status_change=on_status_change)
    await Pipeline(stages=[Stage("A", 1, [work])], status_tracker=tracker).run([1])
    assert received == [("queued", 0), ("in_progress", 0), ("completed", 1)]


async def test_a_loop_can_poll_statistics_during_a_run() -> None:
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


async def test_a_loop_can_poll_dashboard_snapshots() -> None:
    pipeline = Pipeline([Stage("A", 2, [work])])
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.run, range(4))
        await anyio.sleep(0.5)
        snapshot = pipeline.get_dashboard_snapshot()
    assert [state.status for state in snapshot.worker_states.values()] == ["busy", "busy"]
    assert {state.current_item_id for state in snapshot.worker_states.values()} == {0, 1}
    assert snapshot.pipeline_stats.items_in_flight == 4
    # The snapshot is a copy: the rest of the run did not change it.
    assert pipeline.get_stats().items_in_flight == 0
