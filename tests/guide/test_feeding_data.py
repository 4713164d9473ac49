"""User guide, "Feeding Data"."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from antflow import Pipeline, Stage

pytestmark = pytest.mark.virtual_time


async def same(x: Any) -> Any:
    return x


async def data_generator() -> AsyncIterator[int]:
    for i in range(100):
        await anyio.sleep(0.01)
        yield i


async def test_run_accepts_a_synchronous_iterable() -> None:
    items = list(range(100))
    assert (await Pipeline([Stage("A", 3, [same])]).run(items)).values == items


async def test_run_accepts_an_async_iterable() -> None:
    results = await Pipeline([Stage("A", 3, [same])]).run(data_generator())
    assert results.values == list(range(100))


async def test_feed_async_stores_the_outcomes_in_the_pipeline() -> None:
    pipeline = Pipeline([Stage("A", 3, [same])])
    await pipeline.feed_async(data_generator())
    assert pipeline.results.values == list(range(100))
    assert pipeline.failures == []


async def test_dicts_may_contain_ids() -> None:
    items = [
        {"id": "user_1", "value": {"name": "Alice"}},
        {"id": "user_2", "value": {"name": "Bob"}},
    ]
    results = await Pipeline([Stage("A", 3, [same])]).run(items)
    assert [(result.id, result.value) for result in results] == [
        ("user_1", {"name": "Alice"}),
        ("user_2", {"name": "Bob"}),
    ]
