"""User guide, "Complete ETL Example"."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from antflow import Pipeline, Stage

pytestmark = pytest.mark.virtual_time


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
