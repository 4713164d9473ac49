"""The types of the names in `antflow.testing`; this module is type-checked, not run."""

from __future__ import annotations

from typing import Any

from hypothesis.strategies import SearchStrategy
from typing_extensions import assert_type

from antflow import Pipeline, PipelineResult, Stage, StatusEvent, TaskEvent
from antflow.testing import (
    EventLog,
    assert_promises,
    failing,
    flaky,
    pipelines,
    slow,
    sources,
    stages,
)


async def fetch(url: str) -> bytes:
    return url.encode()


def parse(body: bytes) -> int:
    return len(body)


async def use_the_test_kit(pipeline: Pipeline) -> None:
    tasks = [
        flaky(fetch, times=2, error=OSError),
        flaky(times=lambda value: 1, error=lambda value: OSError(value)),
        failing(KeyError, parse, when=lambda value: value > 3),
        slow(1, fetch),
        slow([0.5, 1]),
        slow(lambda value: 0.5),
    ]
    Stage("A", 1, tasks)
    with EventLog(pipeline) as log:
        results = await pipeline.run(log.source(range(3)))
        async with pipeline.stream(log.source([1])) as stream:
            async for result in log.sink(stream):
                assert_type(log.take(result), PipelineResult)
    assert_promises(log, results, complete=True)
    assert_type(log.read, int)
    assert_type(log.status_events, list[StatusEvent])
    assert_type(log.task_events, list[TaskEvent])
    assert_type(sources(max_size=3), SearchStrategy[Any])
    assert_type(stages("A", task=fetch), SearchStrategy[Stage])
    assert_type(pipelines(max_stages=2, max_workers=3), SearchStrategy[Pipeline])
