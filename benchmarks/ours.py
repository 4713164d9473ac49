"""antflow itself, as it is measured."""

from __future__ import annotations

from typing import Any

from antflow import Pipeline, Stage, StatusTracker

from .by_hand import Run
from .tasks import Task


def pipeline(tasks: list[Task], workers: int, tracked: bool = False, **options: Any) -> Pipeline:
    stages = [
        Stage(f"Stage{index}", workers, [task], **options) for index, task in enumerate(tasks)
    ]
    return Pipeline(stages, status_tracker=StatusTracker() if tracked else None)


def run(tasks: list[Task], workers: int, **options: Any) -> Run:
    """Use `Pipeline.run`; the values of failed items follow the others."""
    built = pipeline(tasks, workers, **options)

    async def run(count: int) -> list[int]:
        results = await built.run(range(count))
        values = results.values
        if results.failures:
            values += sorted(failure.value for failure in results.failures)
        return values

    return run


def stream(tasks: list[Task], workers: int, ordered: bool = False) -> Run:
    """Use `Pipeline.stream`."""
    built = pipeline(tasks, workers)

    async def run(count: int) -> list[int]:
        async with built.stream(range(count), ordered=ordered) as results:
            values = [result.value async for result in results]
        return values if ordered else sorted(values)

    return run
