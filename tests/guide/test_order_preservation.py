"""User guide, "Order Preservation"."""

from __future__ import annotations

import anyio
import pytest

from antflow import Pipeline, Stage

pytestmark = pytest.mark.virtual_time


@pytest.mark.virtual_time
async def test_results_maintain_input_order() -> None:
    async def later_is_faster(x: int) -> int:
        await anyio.sleep(20 - x)
        return x

    stages = [Stage("A", 20, [later_is_faster]), Stage("B", 3, [later_is_faster])]
    assert (await Pipeline(stages).run(range(20))).values == list(range(20))


async def test_failures_leave_no_gap_and_change_no_order() -> None:
    async def odd_fails(x: int) -> int:
        await anyio.sleep(20 - x)
        if x % 2:
            raise ValueError
        return x

    stages = [Stage("A", 20, [odd_fails], task_attempts=2)]
    assert (await Pipeline(stages).run(range(20))).values == list(range(0, 20, 2))
