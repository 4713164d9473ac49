"""User guide, "Order Preservation"."""

from __future__ import annotations

import anyio
import pytest

from antflow import Pipeline, Stage

pytestmark = pytest.mark.virtual_time


@pytest.mark.virtual_time
async def test_results_are_in_input_order() -> None:
    async def sleep_less_for_later_items(x: int) -> int:
        await anyio.sleep(20 - x)
        return x

    stages = [
        Stage("A", 20, [sleep_less_for_later_items]),
        Stage("B", 3, [sleep_less_for_later_items]),
    ]
    assert (await Pipeline(stages).run(range(20))).values == list(range(20))


async def test_failures_are_left_out_and_do_not_change_the_order() -> None:
    async def fail_odd(x: int) -> int:
        await anyio.sleep(20 - x)
        if x % 2:
            raise ValueError
        return x

    stages = [Stage("A", 20, [fail_odd], task_attempts=2)]
    assert (await Pipeline(stages).run(range(20))).values == list(range(0, 20, 2))
