"""User guide, "Core Concepts", "Basic Usage", "Order Preservation", "Context Manager"."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from antflow import Pipeline, Stage, StatusTracker


async def fetch(x: int) -> str:
    return f"data_{x}"


async def process(x: str) -> str:
    return x.upper()


async def test_a_stage_has_one_or_more_tasks_that_run_in_sequence() -> None:
    async def validate(x: int) -> int:
        if x < 0:
            raise ValueError("Negative value")
        return x

    async def transform(x: int) -> int:
        return x * 2

    async def format_output(x: int) -> str:
        return f"Result: {x}"

    stage = Stage(name="ProcessStage", workers=3, tasks=[validate, transform, format_output])
    results = await Pipeline(stages=[stage]).run(range(10))
    assert results.values == [f"Result: {2 * x}" for x in range(10)]


async def test_the_workers_of_a_stage_run_in_parallel() -> None:
    all_in = anyio.Event()
    inside = 0

    async def meet(x: int) -> int:
        nonlocal inside
        inside += 1
        if inside == 5:
            all_in.set()
        await all_in.wait()
        return x

    assert len(await Pipeline([Stage("Meet", workers=5, tasks=[meet])]).run(range(5))) == 5


async def test_status_is_tracked_when_a_tracker_is_configured() -> None:
    tracker = StatusTracker()
    await Pipeline([Stage("Fetch", 2, [fetch])], status_tracker=tracker).run(range(4))
    assert tracker.get_stats()["completed"] == 4


async def test_items_flow_from_one_stage_to_the_next_and_results_come_from_the_last() -> None:
    pipeline = Pipeline(
        stages=[
            Stage(name="Fetch", workers=3, tasks=[fetch]),
            Stage(name="Process", workers=2, tasks=[process]),
        ]
    )
    results = await pipeline.run(range(10))
    assert [result.value for result in results] == [f"DATA_{x}" for x in range(10)]


async def test_each_stage_has_its_own_queue_and_workers() -> None:
    pipeline = Pipeline([Stage("Fetch", 3, [fetch]), Stage("Process", 2, [process])])
    assert {stage: len(names) for stage, names in pipeline.get_worker_names().items()} == {
        "Fetch": 3,
        "Process": 2,
    }
    assert pipeline.get_stats().queue_sizes == {"Fetch": 0, "Process": 0}


@pytest.mark.virtual_time
async def test_results_maintain_input_order() -> None:
    async def later_is_faster(x: int) -> int:
        await anyio.sleep(20 - x)
        return x

    stages = [Stage("A", 20, [later_is_faster]), Stage("B", 3, [later_is_faster])]
    assert (await Pipeline(stages).run(range(20))).values == list(range(20))


async def test_a_pipeline_is_a_context_manager() -> None:
    async with Pipeline(stages=[Stage("Fetch", 2, [fetch])]) as pipeline:
        results = await pipeline.run(range(3))
    assert len(results) == 3


async def test_an_error_in_the_body_comes_out_as_itself() -> None:
    with pytest.raises(KeyError):
        async with Pipeline([Stage("Fetch", 2, [fetch])]):
            raise KeyError


async def test_leaving_the_context_early_leaves_nothing_running() -> None:
    async def forever(x: Any) -> None:
        await anyio.sleep_forever()

    before = len(anyio.get_running_tasks())
    with anyio.CancelScope() as scope:
        pipeline = Pipeline([Stage("Forever", 5, [forever])])
        async with pipeline, anyio.create_task_group() as group:
            group.start_soon(pipeline.run, range(9))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert len(anyio.get_running_tasks()) == before
