"""User guide, "Feeding Data", "Error Handling" and "Complete ETL Example"."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker

pytestmark = pytest.mark.virtual_time


async def same(x: Any) -> Any:
    return x


async def data_generator() -> AsyncIterator[int]:
    for i in range(100):
        await anyio.sleep(0.01)
        yield i


async def test_a_synchronous_iterable() -> None:
    items = list(range(100))
    assert (await Pipeline([Stage("A", 3, [same])]).run(items)).values == items


async def test_an_async_iterable_by_run() -> None:
    results = await Pipeline([Stage("A", 3, [same])]).run(data_generator())
    assert results.values == list(range(100))


async def test_an_async_iterable_by_feed_async_leaves_the_outcome_with_the_pipeline() -> None:
    pipeline = Pipeline([Stage("A", 3, [same])])
    await pipeline.feed_async(data_generator())
    assert pipeline.results.values == list(range(100))
    assert pipeline.failures == []


async def test_dicts_bring_ids_of_their_own() -> None:
    items = [
        {"id": "user_1", "value": {"name": "Alice"}},
        {"id": "user_2", "value": {"name": "Bob"}},
    ]
    results = await Pipeline([Stage("A", 3, [same])]).run(items)
    assert [(result.id, result.value) for result in results] == [
        ("user_1", {"name": "Alice"}),
        ("user_2", {"name": "Bob"}),
    ]


async def test_failures_are_in_the_tracker_and_in_the_metadata_of_events() -> None:
    async def risky_task(x: int) -> int:
        if x % 2:
            raise ValueError(f"odd {x}")
        return x

    errors: list[str] = []

    async def on_status_change(event: StatusEvent) -> None:
        if event.status == "failed":
            errors.append(f"Item {event.item_id} failed: {event.metadata.get('error')}")

    tracker = StatusTracker(on_status_change=on_status_change)
    stage = Stage(
        name="RiskyStage", workers=3, tasks=[risky_task], retry="per_task", task_attempts=3
    )
    await Pipeline(stages=[stage], status_tracker=tracker).run(range(4))
    assert (tracker.get_stats()["completed"], tracker.get_stats()["failed"]) == (2, 2)
    assert sorted(event.metadata["error"] for event in tracker.get_by_status("failed")) == [
        "odd 1",
        "odd 3",
    ]
    assert sorted(errors) == ["Item 1 failed: odd 1", "Item 3 failed: odd 3"]


async def test_the_complete_etl_example() -> None:
    class ETLProcessor:
        async def extract(self, item_id: int) -> dict[str, Any]:
            await anyio.sleep(0.1)
            return {"id": item_id, "data": f"raw_{item_id}"}

        async def validate(self, data: dict[str, Any]) -> dict[str, Any]:
            if "data" not in data:
                raise ValueError("Invalid data")
            return data

        async def transform(self, data: dict[str, Any]) -> dict[str, Any]:
            data["processed"] = data["data"].upper()
            return data

        async def enrich(self, data: dict[str, Any]) -> dict[str, Any]:
            data["metadata"] = {"timestamp": "2025-10-09"}
            return data

        async def load(self, data: dict[str, Any]) -> dict[str, Any]:
            await anyio.sleep(0.1)
            data["saved"] = True
            return data

    processor = ETLProcessor()
    pipeline = Pipeline(
        stages=[
            Stage(
                name="Extract",
                workers=10,
                tasks=[processor.extract],
                retry="per_task",
                task_attempts=5,
                task_wait_seconds=2.0,
            ),
            Stage(
                name="Transform",
                workers=5,
                tasks=[processor.validate, processor.transform, processor.enrich],
                retry="per_stage",
                stage_attempts=3,
            ),
            Stage(
                name="Load",
                workers=3,
                tasks=[processor.load],
                retry="per_task",
                task_attempts=5,
                task_wait_seconds=3.0,
            ),
        ]
    )
    results = await pipeline.run(range(100))
    assert len(results) == 100
    assert results[41].value == {
        "id": 41,
        "data": "raw_41",
        "processed": "RAW_41",
        "metadata": {"timestamp": "2025-10-09"},
        "saved": True,
    }
    assert pipeline.get_stats().items_processed == 100
