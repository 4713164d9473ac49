"""Concurrency limits: never exceeded, no deadlocks, no leaked permits."""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from contextvars import copy_context
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import Pipeline, RetryPolicy, Stage, StatusTracker
from antflow._tasks.concurrency_limits import (
    acquire_all,
    make_semaphores,
    note_held,
    release_all,
    share_semaphores,
)


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


async def test_a_limit_of_a_tracker_holds_across_runs_that_overlap() -> None:
    meter = Meter()
    stage = Stage("A", 8, [meter.task("api")])
    tracker = StatusTracker(task_concurrency_limits={"api": 2})
    pipelines = [Pipeline([stage], status_tracker=tracker) for _ in range(2)]

    async def stream() -> None:
        async with pipelines[0].stream(range(30)) as results:
            assert len([result async for result in results]) == 30

    async def feed() -> None:
        async with pipelines[1]:
            await pipelines[1].feed(range(30))

    async with anyio.create_task_group() as group:
        for pipeline in pipelines:
            group.start_soon(pipeline.run, range(30))
        group.start_soon(stream)
        group.start_soon(feed)
    assert meter.most["api"] == 2


async def test_a_cancelled_run_leaves_the_limits_that_it_shares_as_they_were() -> None:
    meter = Meter()
    gate = anyio.Event()

    async def api(value: str) -> str:
        if value == "held":
            await anyio.sleep_forever()
        return await task(1)

    task = meter.task("api")
    tracker = StatusTracker(task_concurrency_limits={"api": 2})
    pipeline = Pipeline([Stage("A", 8, [api])], status_tracker=tracker)

    async def held(scope: anyio.CancelScope) -> None:
        with scope:
            await pipeline.run(["held"] * 5)

    async def waiting() -> None:
        assert len(await pipeline.run(["free"] * 20)) == 20
        gate.set()

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(held, scope)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(waiting)
        await anyio.wait_all_tasks_blocked()
        assert not gate.is_set()
        scope.cancel()
    assert gate.is_set()
    assert meter.most["api"] == 2


@pytest.mark.parametrize("plain", [False, True])
async def test_a_run_inside_a_limited_task_has_limits_of_its_own(plain: bool) -> None:
    """It would wait for the task that waits for it."""

    async def api(depth: int) -> int:
        if depth:
            async with anyio.create_task_group() as group:
                group.start_soon(pipeline.run, [depth - 1])
        return depth

    def api_in_thread(depth: int) -> int:
        if depth:
            anyio.from_thread.run(pipeline.run, [depth - 1])
        return depth

    api_in_thread.__name__ = "api"
    tracker = StatusTracker(task_concurrency_limits={"api": 1})
    task: Any = api_in_thread if plain else api
    pipeline = Pipeline([Stage("A", 2, [task])], status_tracker=tracker)
    assert (await pipeline.run([3, 3])).values == [3, 3]
    assert tracker.get_stats()["failed"] == 0


async def test_a_task_that_is_not_limited_shares_the_limits_with_its_runs() -> None:
    meter = Meter()
    inner = [Stage("Inner", 8, [meter.task("api")])]

    async def start(value: int) -> Any:
        return (await Pipeline(inner, status_tracker=tracker).run(range(8))).values

    tracker = StatusTracker(task_concurrency_limits={"api": 2})
    outer = Pipeline([Stage("Outer", 4, [start])], status_tracker=tracker)
    assert (await outer.run(range(4))).values == [list(range(8))] * 4
    assert meter.most["api"] == 2


async def test_a_limited_task_costs_no_new_loop_task() -> None:
    """What notes the limit is undone in the context of the worker."""
    seen: set[int] = set()

    async def api(value: int) -> int:
        seen.add(anyio.get_current_task().id)
        return value

    tracker = StatusTracker(task_concurrency_limits={"api": 1})
    await Pipeline([Stage("A", 1, [api])], status_tracker=tracker).run(range(20))
    assert len(seen) == 1


async def test_a_dropped_task_can_be_closed_in_another_context() -> None:
    (semaphore,) = make_semaphores({"api": 1}).values()
    semaphore.acquire_nowait()
    token = copy_context().run(note_held, [semaphore])
    release_all([semaphore], token)
    assert semaphore.value == 1


async def test_shared_limits_are_freed_with_the_runs_that_have_them() -> None:
    limits = {"api": 2}
    semaphores = share_semaphores(limits)
    assert share_semaphores(limits) is semaphores
    # Equal limits of another tracker are not shared.
    assert share_semaphores(dict(limits)) is not semaphores
    freed = weakref.ref(semaphores)
    del semaphores
    assert freed() is None


def test_event_loops_do_not_share_limits() -> None:
    limits = {"api": 2}

    async def share() -> Any:
        return share_semaphores(limits)

    assert anyio.run(share) is not anyio.run(share)


async def test_overlapping_runs_have_separate_limits_of_stages() -> None:
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
