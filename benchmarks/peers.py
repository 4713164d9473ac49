"""
Alternative libraries, each used in the fastest way that its documentation shows.

All do the same: three async no-op stages, eight items at a time, results in a list in input order.
They run on asyncio's own event loop. Where the documentation has a plain way and a faster one, both
are measured:

- streamable: `stream(...).map(f, concurrency=8)`, iterated over with `async for`. It keeps the
  order. `as_completed=True`, `buffer()` and iterating without a loop are slower.
- pypeln: `pl.task.map(f, stage, workers=8)` and `pl.task.ordered` at the end, iterated over with
  `async for`. Its queues are unbounded by default; with bounds, or sorted by us, it is slower.
- aiostream: `pipe.map(f, task_limit=8)`, which keeps the order, into `pipe.list()`.
- SPDL: `pipe(f, concurrency=8)` from an async source, which avoids passing each item between
  threads, and a sink of 64; sorted afterwards. Its event loop runs in a thread. The faster way
  disables its statistics: plain queues, no hooks.
- antflow 0.10.0: `Stage(workers=8, tasks=[f])` and `run()`. Its retries per task are on by default,
  like those of this antflow, and wrap each call. The faster way is `retry="per_stage"`, which does
  not wrap them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .tasks import Task

# The only place for the versions. The first of each is the peer itself.
PINNED: dict[str, tuple[str, ...]] = {
    "streamable": ("streamable==2.0.0",),
    # It imports pkg_resources, which newer versions of setuptools do not have.
    "pypeln": ("pypeln==0.4.9", "setuptools==80.9.0"),
    "aiostream": ("aiostream==0.8.1",),
    # The part of `spdl` that has the pipelines; the other parts load media files.
    "SPDL": ("spdl-core==0.8.0",),
    "antflow 0.10.0": ("antflow==0.10.0",),
}

RunPeer = Callable[[int], list[int]]


def streamable(tasks: list[Task], workers: int) -> RunPeer:
    from streamable import stream

    async def run(count: int) -> list[int]:
        values = stream(range(count))
        for task in tasks:
            values = values.map(task, concurrency=workers)
        return [value async for value in values]

    return lambda count: asyncio.run(run(count))


def pypeln(tasks: list[Task], workers: int) -> RunPeer:
    import pypeln as pl

    async def run(count: int) -> list[int]:
        values: Any = range(count)
        for task in tasks:
            values = pl.task.map(task, values, workers=workers)
        return [value async for value in pl.task.ordered(values)]

    return lambda count: asyncio.run(run(count))


def aiostream(tasks: list[Task], workers: int) -> RunPeer:
    from aiostream import pipe, stream

    async def run(count: int) -> list[int]:
        values = stream.iterate(range(count))
        for task in tasks:
            values = values | pipe.map(task, task_limit=workers)
        return await (values | pipe.list())

    return lambda count: asyncio.run(run(count))


def spdl(tasks: list[Task], workers: int, statistics: bool = True) -> RunPeer:
    from spdl.pipeline import AsyncQueue, PipelineBuilder

    options: dict[str, Any] = {}
    if not statistics:
        options = {"queue_class": AsyncQueue, "task_hook_factory": lambda _: []}

    async def source(count: int) -> Any:
        for value in range(count):
            yield value

    def run(count: int) -> list[int]:
        builder = PipelineBuilder().add_source(source(count))
        for task in tasks:
            builder.pipe(task, concurrency=workers)
        pipeline = builder.add_sink(64).build(num_threads=1, **options)
        with pipeline.auto_stop():
            return sorted(pipeline)

    return run


def antflow_0_10(tasks: list[Task], workers: int, **options: Any) -> RunPeer:
    from antflow import Pipeline, Stage

    async def run(count: int) -> list[int]:
        stages = [
            Stage(name=f"Stage{index}", workers=workers, tasks=[task], **options)
            for index, task in enumerate(tasks)
        ]
        results = await Pipeline(stages=stages).run(range(count))
        return [result.value for result in results]

    return lambda count: asyncio.run(run(count))
