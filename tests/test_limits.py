"""Concurrency limits: never exceeded, no deadlocks, no leaked permits."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import Pipeline, RetryPolicy, Stage, StatusTracker
from antflow._tasks.concurrency_limits import acquire_all, make_semaphores, release_all


class Meter:
    """Counts how many calls of each task are running."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def task(self, name: str, fails: int = 0) -> Any:
        calls: Counter[int] = Counter()

        async def task(value: int) -> int:
            self.now[name] += 1
            self.most[name] = max(self.most[name], self.now[name])
            try:
                for _ in range(value % 4):
                    await checkpoint()
                calls[value] += 1
                if calls[value] <= fails:
                    raise ValueError
            finally:
                self.now[name] -= 1
            return value

        task.__name__ = name
        return task


@pytest.mark.parametrize("scope", ["task", "stage"])
async def test_a_limit_of_a_stage_holds_per_task_and_with_retries(scope: Any) -> None:
    meter = Meter()
    stage = Stage(
        "A",
        10,
        [meter.task("api", fails=1)],
        RetryPolicy(scope=scope, wait_initial=0, wait_jitter=0),
        task_concurrency_limits={"api": 3},
    )
    results = await Pipeline([stage]).run(range(60))
    assert results.values == list(range(60))
    assert meter.most["api"] == 3


async def test_a_limit_does_not_block_other_tasks() -> None:
    inside = 0
    all_started = anyio.Event()

    async def limited(value: int) -> int:
        return value

    async def free(value: int) -> int:
        nonlocal inside
        inside += 1
        if inside == 10:
            all_started.set()
        await all_started.wait()
        return value

    stage = Stage("A", 10, [limited, free], task_concurrency_limits={"limited": 1})
    assert len(await Pipeline([stage]).run(range(10))) == 10


async def test_a_limit_of_a_tracker_holds_across_all_stages() -> None:
    """The limit counts the function, a partial of it, and a method with its name together."""
    meter = Meter()
    api = meter.task("api")

    class Client:
        async def api(self, value: int) -> int:
            return await api(value)

    stages = [
        Stage("A", 8, [api]),
        Stage("B", 8, [functools.partial(api)]),
        Stage("C", 8, [Client().api]),
    ]
    tracker = StatusTracker(task_concurrency_limits={"api": 2, "unknown": 1})
    results = await Pipeline(stages, status_tracker=tracker).run(range(60))
    assert results.values == list(range(60))
    assert meter.most["api"] == 2


async def test_limits_of_stage_and_tracker_hold_together() -> None:
    meter = Meter()
    api = meter.task("api")
    stages = [
        Stage("A", 8, [api], task_concurrency_limits={"api": 2}),
        Stage("B", 8, [api], task_concurrency_limits={"api": 3}),
    ]
    tracker = StatusTracker(task_concurrency_limits={"api": 4})
    results = await Pipeline(stages, status_tracker=tracker).run(range(80))
    assert results.values == list(range(80))
    assert 2 <= meter.most["api"] <= 4


async def test_overlapping_runs_have_separate_limits() -> None:
    inside = 0
    both_started = anyio.Event()

    async def task(value: int) -> int:
        nonlocal inside
        inside += 1
        if inside == 2:
            both_started.set()
        await both_started.wait()
        return value

    pipeline = Pipeline([Stage("A", 2, [task], task_concurrency_limits={"task": 1})])
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.run, [1])
        group.start_soon(pipeline.run, [2])


async def test_waiting_for_one_limit_holds_no_other() -> None:
    semaphores = make_semaphores({"scarce": 1, "plenty": 5})
    scarce, plenty = semaphores["scarce"], semaphores["plenty"]
    await scarce.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(acquire_all, (plenty, scarce))
        await anyio.wait_all_tasks_blocked()
        assert plenty.value == 5
        scarce.release()
    assert (scarce.value, plenty.value) == (0, 4)
    release_all((plenty, scarce))
    assert (scarce.value, plenty.value) == (1, 5)


async def test_cancelling_waiters_leaks_no_permit() -> None:
    limit = make_semaphores({"t": 1})["t"]
    await limit.acquire()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(acquire_all, (limit,))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    limit.release()
    assert limit.value == 1


async def test_waiters_are_served_in_fifo_order() -> None:
    limit = make_semaphores({"t": 1})["t"]
    order: list[int] = []

    async def take(number: int) -> None:
        await acquire_all((limit,))
        order.append(number)
        await checkpoint()
        release_all((limit,))

    await limit.acquire()
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(take, number)
            await anyio.wait_all_tasks_blocked()
        limit.release()
    assert order == [0, 1, 2, 3, 4]


async def test_the_start_event_is_published_after_the_limit_was_acquired() -> None:
    running = 0
    most = 0

    def count(event: Any) -> None:
        nonlocal running, most
        running += 1 if event.event_type == "start" else -1
        most = max(most, running)

    async def task(value: int) -> int:
        await checkpoint()
        return value

    tracker = StatusTracker(on_task_start=count, on_task_complete=count)
    stage = Stage("A", 5, [task], task_concurrency_limits={"task": 2})
    await Pipeline([stage], status_tracker=tracker).run(range(20))
    # A complete event follows the release, so another task may have started in between.
    assert running == 0
    assert most <= 4
