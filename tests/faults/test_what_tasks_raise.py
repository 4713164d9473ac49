"""Rows 11 and 14-16: what tasks may raise, how it is reported, and how often it is retried."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections import defaultdict
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio import CancelScope, get_cancelled_exc_class
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st

from antflow import Pipeline, RetryPolicy, Stage
from antflow.testing import Decision, explore
from faults.kit import both_backends, explored, no_leaked_tasks, row

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

scopes = st.sampled_from(["task", "stage"])
workers = st.integers(1, 3)


class Fatal(BaseException):
    """Neither an Exception nor a cancellation."""


async def same(value: Any) -> Any:
    await checkpoint()
    return value


# ---- row 11


async def raise_an_old_cancellation() -> None:
    kept: BaseException | None = None
    with CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except get_cancelled_exc_class() as error:
            kept = error
            raise
    assert kept is not None
    await checkpoint()
    try:
        raise kept
    finally:
        del kept


async def await_a_cancelled_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def await_a_cancelled_task() -> None:
    task = asyncio.ensure_future(asyncio.Event().wait())
    await checkpoint()
    task.cancel()
    await task


async def raise_cancelled_error() -> None:
    raise asyncio.CancelledError("by hand")


async def raise_a_group_with_a_cancellation() -> None:
    raise BaseExceptionGroup("mine", [asyncio.CancelledError(), ValueError()])


STRAYS: dict[str, list[Callable[[], Awaitable[None]]]] = {
    "asyncio": [
        raise_an_old_cancellation,
        await_a_cancelled_future,
        await_a_cancelled_task,
        raise_cancelled_error,
        raise_a_group_with_a_cancellation,
    ],
    "trio": [raise_an_old_cancellation],
}

ANYTHING = "Whatever a task raises either fails its item or is raised by the run; nothing is lost"


@row(11, ANYTHING)
@explored(2, which=st.integers(0, 4), scope=scopes, workers=workers)
def test_a_cancellation_of_something_else_fails_its_item_only(
    backend: str, schedule: list[Decision], which: int, scope: Any, workers: int
) -> None:
    strays = STRAYS[backend]
    stray = strays[which % len(strays)]

    async def task(value: int) -> int:
        await checkpoint()
        if value % 3 == 1:
            await stray()
        return value

    policy = RetryPolicy(scope=scope, attempts=2, wait_initial=1)
    pipeline = Pipeline([Stage("A", workers, [task], policy), Stage("B", 2, [same])])

    async def main() -> None:
        async with no_leaked_tasks():
            results = await pipeline.run(range(8))
        assert results.values == [0, 2, 3, 5, 6]
        # A cancellation is not an `Exception`, so it is not retried.
        found = sorted((failed.value, failed.attempts) for failed in results.failures)
        assert found == [(1, 1), (4, 1), (7, 1)]

    explore(main, backend=backend, schedule=schedule)


@row(11, ANYTHING)
@explored(
    2, odd=st.sampled_from([StopIteration, StopAsyncIteration]), scope=scopes, workers=workers
)
def test_stop_iteration_fails_its_item_only(
    backend: str, schedule: list[Decision], odd: type[Exception], scope: Any, workers: int
) -> None:
    async def task(value: int) -> int:
        await checkpoint()
        if value % 3 == 1:
            raise odd
        return value

    policy = RetryPolicy(scope=scope, attempts=2, wait_initial=1)
    pipeline = Pipeline([Stage("A", workers, [task], policy), Stage("B", 2, [same])])
    # Python converts a StopIteration that leaves a coroutine.
    name = "RuntimeError" if odd is StopIteration else "StopAsyncIteration"

    async def main() -> None:
        async with no_leaked_tasks():
            results = await pipeline.run(range(8))
        assert results.values == [0, 2, 3, 5, 6]
        found = sorted((item.value, item.attempts, item.error_type) for item in results.failures)
        assert found == [(value, 2, name) for value in (1, 4, 7)]

    explore(main, backend=backend, schedule=schedule)


@row(11, ANYTHING)
async def test_stop_iteration_in_a_thread_fails_its_item_only() -> None:
    def task(value: int) -> int:
        if value == 1:
            raise StopIteration
        return value

    pipeline = Pipeline([Stage("A", 2, [task], task_attempts=1)])
    results = await pipeline.run(range(3))
    assert results.values == [0, 2]
    assert [failed.error_type for failed in results.failures] == ["RuntimeError"]


FATAL: dict[str, list[BaseException]] = {
    "asyncio": [Fatal("mine"), GeneratorExit("mine")],
    # To trio, asyncio's CancelledError is an ordinary BaseException.
    "trio": [Fatal("mine"), GeneratorExit("mine"), asyncio.CancelledError("mine")],
}


@row(11, ANYTHING)
@explored(2, which=st.integers(0, 2), scope=scopes, workers=workers, in_first=st.booleans())
def test_a_base_exception_ends_the_run_and_is_raised_as_itself(
    backend: str, schedule: list[Decision], which: int, scope: Any, workers: int, in_first: bool
) -> None:
    fatal = FATAL[backend][which % len(FATAL[backend])]
    healthy = False

    async def task(value: int) -> int:
        await checkpoint()
        if value == 3 and not healthy:
            raise fatal
        return value

    tasks = [task, same] if in_first else [same, task]
    policy = RetryPolicy(scope=scope, attempts=2, wait_initial=1)
    pipeline = Pipeline(
        [
            Stage(name, workers, [each], policy, queue_capacity=1)
            for name, each in zip(("A", "B"), tasks)
        ]
    )

    async def main() -> None:
        async with no_leaked_tasks():
            with pytest.raises(type(fatal)) as raised:
                await pipeline.run(range(8))
        assert raised.value is fatal
        assert pipeline.failures == []
        assert pipeline.get_stats().items_in_flight == 0
        nonlocal healthy
        healthy = True
        assert (await pipeline.run(range(8))).values == list(range(8))

    explore(main, backend=backend, schedule=schedule)
    fatal.__traceback__ = None


@row(11, ANYTHING)
@both_backends
def test_a_task_may_exit_the_program(backend: str) -> None:
    """Not explored: asyncio raises SystemExit from the loop without waiting for loop tasks."""

    async def task(value: int) -> int:
        await checkpoint()
        if value == 3:
            raise SystemExit(7)
        return value

    pipeline = Pipeline([Stage("A", 2, [task]), Stage("B", 2, [same])])
    with pytest.raises(SystemExit) as raised:
        explore(pipeline.run, range(8), backend=backend)
    assert raised.value.code == 7
    assert pipeline.failures == []
    assert pipeline.get_stats().items_in_flight == 0


# ---- row 14

FATAL_ERRORS = "One fatal error is raised as itself, with its traceback; several in one flat group"


@row(14, FATAL_ERRORS)
@explored(2, workers=workers, busy=st.integers(0, 2))
def test_one_fatal_error_is_raised_with_its_own_traceback(
    backend: str, schedule: list[Decision], workers: int, busy: int
) -> None:
    fatal = Fatal("mine")

    async def deep_inside(value: int) -> None:
        await checkpoint()
        raise fatal

    async def task(value: int) -> int:
        await checkpoint()
        if value == 3:
            await deep_inside(value)
        return value

    async def wait(value: int) -> int:
        await anyio.sleep(value % 3)
        return value

    pipeline = Pipeline([Stage("A", workers, [task]), Stage("B", 1 + busy, [wait])])

    async def main() -> None:
        async with no_leaked_tasks():
            with pytest.raises(Fatal) as raised:
                await pipeline.run(range(8))
            assert raised.value is fatal
            frames = [frame.name for frame in traceback.extract_tb(fatal.__traceback__)]
            assert frames[-2:] == ["task", "deep_inside"]
        assert pipeline.failures == []

    explore(main, backend=backend, schedule=schedule)
    fatal.__traceback__ = None


@row(14, FATAL_ERRORS)
@explored(2, count=st.integers(2, 4), nested=st.booleans())
def test_several_fatal_errors_are_raised_in_one_flat_group(
    backend: str, schedule: list[Decision], count: int, nested: bool
) -> None:
    inside = 0
    all_inside = anyio.Event()

    async def task(value: int) -> None:
        nonlocal inside
        inside += 1
        if inside == count:
            all_inside.set()
        try:
            await all_inside.wait()
            if value:
                await anyio.sleep_forever()
        finally:
            if nested:
                raise BaseExceptionGroup("mine", [BaseExceptionGroup("inner", [Fatal(value)])])
            raise Fatal(value)

    pipeline = Pipeline([Stage("A", count, [task])])

    async def main() -> None:
        nonlocal all_inside
        all_inside = anyio.Event()
        async with no_leaked_tasks():
            with pytest.raises(BaseExceptionGroup) as raised:
                await pipeline.run(range(count))
        group = raised.value
        assert {type(error) for error in group.exceptions} == {Fatal}
        assert sorted(error.args[0] for error in group.exceptions) == list(range(count))
        assert pipeline.failures == []

    explore(main, backend=backend, schedule=schedule)


# ---- row 15

GROUPS = "Exception groups: retried if every exception in them would be, otherwise kept whole"


@row(15, GROUPS)
@explored(2, scope=scopes, workers=workers)
def test_a_group_is_retried_if_every_exception_in_it_would_be(
    backend: str, schedule: list[Decision], scope: Any, workers: int
) -> None:
    attempts: dict[int, int] = defaultdict(int)

    async def fail(error: Exception) -> None:
        await checkpoint()
        raise error

    async def task(value: int) -> int:
        attempts[value] += 1
        if attempts[value] < 3 and value % 2:
            async with anyio.create_task_group() as group:
                group.start_soon(fail, ConnectionError(value))
                group.start_soon(fail, ExceptionGroup("mine", [TimeoutError(value)]))
        elif value == 4:
            raise ExceptionGroup("mine", [ConnectionError(value), ValueError(value)])
        return value

    policy = RetryPolicy(
        scope=scope, attempts=3, on=(ConnectionError, TimeoutError), wait_initial=1, wait_jitter=0
    )
    pipeline = Pipeline([Stage("A", workers, [task], policy), Stage("B", 1, [same])])

    async def main() -> None:
        async with no_leaked_tasks():
            results = await pipeline.run(range(6))
        assert results.values == [0, 1, 2, 3, 5]
        (failed,) = results.failures
        assert (failed.value, failed.attempts, failed.error_type) == (4, 1, "ExceptionGroup")
        assert isinstance(failed.exception, ExceptionGroup)
        kept, rest = failed.exception.split(ConnectionError)
        assert kept is not None
        assert rest is not None
        assert [type(error) for error in rest.exceptions] == [ValueError]
        assert dict(attempts) == {0: 1, 1: 3, 2: 1, 3: 3, 4: 1, 5: 3}

    explore(main, backend=backend, schedule=schedule)


# ---- row 16

EXACT = "Retries: exact numbers of attempts, none after a success, exact waits in virtual time"


class FailingTask:
    """
    A task that fails a given number of times, and records the time of each attempt.

    Args:
        failures: How often the task fails for each value; the index is the value.
    """

    def __init__(self, failures: list[int]) -> None:
        self.failures = failures
        self.started: dict[int, list[float]] = defaultdict(list)

    async def __call__(self, value: int) -> int:
        times = self.started[value]
        times.append(anyio.current_time())
        await checkpoint()
        if len(times) <= self.failures[value]:
            raise ConnectionError(value)
        return value

    def check_counts(self, results: Any, attempts: int) -> None:
        counts = [len(self.started[value]) for value in range(len(self.failures))]
        assert counts == [min(failures + 1, attempts) for failures in self.failures]
        expected = [value for value, count in enumerate(self.failures) if count < attempts]
        assert results.values == expected
        assert {failed.attempts for failed in results.failures} <= {attempts}


@row(16, EXACT)
@explored(
    2,
    failures=st.lists(st.integers(0, 4), max_size=6),
    scope=scopes,
    attempts=st.integers(1, 4),
    workers=workers,
    capacity=st.integers(0, 2),
)
def test_each_item_is_attempted_until_it_succeeds_and_no_longer(
    backend: str,
    schedule: list[Decision],
    failures: list[int],
    scope: Any,
    attempts: int,
    workers: int,
    capacity: int,
) -> None:
    task = FailingTask(failures)
    policy = RetryPolicy(scope=scope, attempts=attempts, wait_initial=1, wait_jitter=0)
    pipeline = Pipeline([Stage("A", workers, [task, same], policy, queue_capacity=capacity)])

    async def main() -> None:
        async with no_leaked_tasks():
            task.check_counts(await pipeline.run(range(len(failures))), attempts)
        for times in task.started.values():
            for number, (sooner, later) in enumerate(pairwise(times)):
                assert later - sooner >= 2**number

    explore(main, backend=backend, schedule=schedule)


@row(16, EXACT)
@both_backends
@pytest.mark.parametrize("scope", ["task", "stage"])
def test_waits_between_attempts_are_exact(backend: str, scope: Any) -> None:
    task = FailingTask([0, 1, 2, 3, 4, 5])
    policy = RetryPolicy(
        scope=scope, attempts=5, wait_initial=8, wait_exp_base=4, wait_max=300, wait_jitter=0
    )
    pipeline = Pipeline([Stage("A", 6, [task], policy)])

    async def main() -> None:
        task.check_counts(await pipeline.run(range(6)), attempts=5)

    explore(main, backend=backend)
    waits = [8, 32, 128, 300]
    for value, times in task.started.items():
        between = [later - sooner for sooner, later in pairwise(times)]
        assert between == waits[:value]


@row(16, EXACT)
@both_backends
@pytest.mark.parametrize("scope", ["task", "stage"])
def test_waits_that_a_hook_returns_are_exact(backend: str, scope: Any) -> None:
    task = FailingTask([3, 3, 3])
    policy = RetryPolicy(
        scope=scope, attempts=4, on=lambda error: 3600 * error.args[0], wait_jitter=0
    )
    pipeline = Pipeline([Stage("A", 3, [task], policy)])

    async def main() -> None:
        task.check_counts(await pipeline.run(range(3)), attempts=4)

    explore(main, backend=backend)
    for value, times in task.started.items():
        assert times == [3600 * value * number for number in range(4)]
