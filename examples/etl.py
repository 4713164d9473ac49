"""
A complete ETL pipeline. Its tasks are the methods of an object.

    python examples/etl.py [--backend asyncio|trio]
"""

from __future__ import annotations

import argparse
from typing import Any

import anyio

from antflow import Pipeline, Stage

Record = dict[str, Any]


class ETLProcessor:
    """Extracts records from an unreliable service and loads them into an in-memory database."""

    def __init__(self) -> None:
        self.database: dict[int, Record] = {}
        self._refused: set[int] = set()

    async def extract(self, item_id: int) -> Record:
        await anyio.sleep(0.01)
        if item_id % 10 == 3 and item_id not in self._refused:
            self._refused.add(item_id)
            raise ConnectionError("service busy")
        return {"id": item_id, "data": f"raw_{item_id}"}

    async def validate(self, record: Record) -> Record:
        if record["id"] == 66:
            raise ValueError("this id is not allowed")
        return record

    async def transform(self, record: Record) -> Record:
        return {**record, "processed": record["data"].upper()}

    async def enrich(self, record: Record) -> Record:
        return {**record, "source": "example"}

    async def load(self, record: Record) -> Record:
        await anyio.sleep(0.01)
        self.database[record["id"]] = record
        return record


async def main() -> None:
    processor = ETLProcessor()
    pipeline = Pipeline(
        [
            Stage("Extract", 10, [processor.extract], task_attempts=5, task_wait_seconds=0.05),
            Stage(
                "Transform",
                5,
                [processor.validate, processor.transform, processor.enrich],
                retry="per_stage",
                stage_attempts=2,
                task_wait_seconds=0.05,
            ),
            Stage("Load", 3, [processor.load], task_attempts=5, task_wait_seconds=0.05),
        ]
    )
    results = await pipeline.run(range(100))
    print(f"Loaded {len(results)} items, the first is {results[0].value}")
    for failure in results.failures:
        print(f"Failed: {failure.as_exception()}")
    for stage in pipeline.get_stats().stage_stats.values():
        print(
            f"{stage.stage_name:10} {stage.completed_items} completed, {stage.failed_items} failed"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
