"""The task functions of the workloads, with the native calls of each backend."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .cases import Case

Task = Callable[[int], Awaitable[int]]
Sleep = Callable[[float], Awaitable[Any]]
FAILING = 10  # items whose number is a multiple of it fail


async def no_op(value: int) -> int:
    return value


async def fail_often(value: int) -> int:
    if value % FAILING == 0:
        raise ValueError(value)
    return value


async def keep_busy(value: int) -> int:
    # CPU time, so that other processes on the machine do not make the task shorter.
    end = time.thread_time() + 300e-6
    while time.thread_time() < end:
        pass
    return value


def yielding(backend: str) -> Task:
    """Return a task that yields to the event loop once."""
    if backend == "trio":
        from trio.lowlevel import checkpoint

        async def yield_once(value: int) -> int:
            await checkpoint()
            return value
    else:

        async def yield_once(value: int) -> int:
            await asyncio.sleep(0)
            return value

    return yield_once


def native_sleep(backend: str) -> Sleep:
    if backend != "trio":
        return asyncio.sleep
    import trio

    return trio.sleep


def durations(stages: int, count: int) -> list[list[float]]:
    """Return how long the task sleeps, by stage and item: 0–10 ms, the same each time."""
    return [
        [source.random() / 100 for _ in range(count)]
        for source in map(random.Random, range(stages))
    ]


def sleeping(backend: str, table: list[float]) -> Task:
    sleep = native_sleep(backend)

    async def sleep_from_table(value: int) -> int:
        await sleep(table[value])
        return value

    return sleep_from_table


def tasks_of(case: Case, count: int) -> list[Task]:
    """Return one task for each stage, for the items 0 to *count* - 1."""
    if case.tasks == "yield":
        return [yielding(case.backend)] * case.stages
    if case.tasks == "sleep_0_to_10_ms":
        return [sleeping(case.backend, table) for table in durations(case.stages, count)]
    if case.tasks == "sleep_10_ms":
        return [sleeping(case.backend, [0.01] * count)] * case.stages
    if case.tasks == "sleep_3_s":
        return [sleeping(case.backend, [3.0] * count)] + [no_op] * (case.stages - 1)
    if case.tasks == "fail":
        # Items fail in the last stage, so that each has passed all stages.
        return [no_op] * (case.stages - 1) + [fail_often]
    return [{"no_op": no_op, "busy": keep_busy}[case.tasks]] * case.stages


def expected(case: Case, count: int) -> list[int]:
    """Return the expected results: values in input order, then those of failed items."""
    if case.tasks != "fail":
        return list(range(count))
    return [n for n in range(count) if n % FAILING] + list(range(0, count, FAILING))


def ideal(case: Case, count: int) -> float:
    """
    Return how long the sleeping stages would take if nothing else took any time.

    Items are served in FIFO order: an item starts at a stage when it has left the stage before and
    a worker is free. Queues are unbounded.
    """
    arrivals = [0.0] * count
    for table in durations(case.stages, count):
        free = [0.0] * case.workers
        order = sorted(range(count), key=arrivals.__getitem__)
        for number in order:
            arrivals[number] = max(arrivals[number], free[0]) + table[number]
            heapq.heapreplace(free, arrivals[number])
    return max(arrivals)
