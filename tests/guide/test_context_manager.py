"""User guide, "Context Manager"."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from antflow import Pipeline, Stage


async def fetch(x: int) -> str:
    return f"data_{x}"


async def test_a_pipeline_is_a_context_manager() -> None:
    async with Pipeline(stages=[Stage("Fetch", 2, [fetch])]) as pipeline:
        results = await pipeline.run(range(3))
    assert len(results) == 3


async def test_an_exception_of_the_body_propagates_as_itself() -> None:
    with pytest.raises(KeyError):
        async with Pipeline([Stage("Fetch", 2, [fetch])]):
            raise KeyError


async def test_cancelling_the_block_leaves_no_loop_task_running() -> None:
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
