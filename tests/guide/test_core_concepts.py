"""User guide, "Core Concepts"."""

from __future__ import annotations

import anyio

from antflow import Pipeline, Stage, StatusTracker


async def fetch(x: int) -> str:
    return f"data_{x}"


async def process(x: str) -> str:
    return x.upper()


async def test_the_workers_of_a_stage_run_in_parallel() -> None:
    all_running = anyio.Event()
    running = 0

    async def wait_for_all(x: int) -> int:
        nonlocal running
        running += 1
        if running == 5:
            all_running.set()
        await all_running.wait()
        return x

    assert len(await Pipeline([Stage("Meet", workers=5, tasks=[wait_for_all])]).run(range(5))) == 5


async def test_status_is_tracked_when_a_tracker_is_configured() -> None:
    tracker = StatusTracker()
    await Pipeline([Stage("Fetch", 2, [fetch])], status_tracker=tracker).run(range(4))
    assert tracker.get_stats()["completed"] == 4


async def test_each_stage_has_its_own_queue_and_workers() -> None:
    pipeline = Pipeline([Stage("Fetch", 3, [fetch]), Stage("Process", 2, [process])])
    assert {stage: len(names) for stage, names in pipeline.get_worker_names().items()} == {
        "Fetch": 3,
        "Process": 2,
    }
    assert pipeline.get_stats().queue_sizes == {"Fetch": 0, "Process": 0}
