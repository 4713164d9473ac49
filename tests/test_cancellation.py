"""Cancellation propagates, fatal errors end the run, stray cancellations fail one item only."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import Pipeline, PipelineError, RetryPolicy, Stage, StatusEvent, StatusTracker

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


class Fatal(BaseException):
    """Neither an Exception nor a cancellation."""


async def same(value: Any) -> Any:
    await checkpoint()
    return value


async def forever(value: Any) -> Any:
    await anyio.sleep_forever()


@pytest.mark.virtual_time
async def test_a_deadline_around_a_run_is_kept() -> None:
    with anyio.move_on_after(5) as scope:
        await Pipeline([Stage("A", 3, [forever])]).run(range(10))
    assert scope.cancelled_caught
    assert anyio.current_time() == pytest.approx(scope.deadline)


@pytest.mark.virtual_time
@pytest.mark.parametrize("scope_of_retry", ["task", "stage"])
async def test_no_attempt_follows_a_cancellation_during_a_back_off(scope_of_retry: Any) -> None:
    attempts = 0

    async def fail(value: int) -> None:
        nonlocal attempts
        attempts += 1
        raise ValueError

    policy = RetryPolicy(scope=scope_of_retry, wait_initial=60)
    with anyio.move_on_after(5) as scope:
        await Pipeline([Stage("A", 1, [fail], policy)]).run([1])
    assert scope.cancelled_caught
    assert attempts == 1


async def test_one_fatal_error_is_raised_unwrapped() -> None:
    fatal = Fatal("the one")
    cancelled = 0

    async def task(value: int) -> int:
        nonlocal cancelled
        if value == 3:
            await anyio.wait_all_tasks_blocked()
            raise fatal
        try:
            return await forever(value)
        except anyio.get_cancelled_exc_class():
            cancelled += 1
            raise

    pipeline = Pipeline([Stage("A", 4, [task]), Stage("B", 2, [same])])
    with pytest.raises(Fatal) as caught:
        await pipeline.run(range(10))
    assert caught.value is fatal
    assert cancelled == 3
    assert pipeline.failures == []


async def test_several_fatal_errors_are_raised_in_one_flat_group() -> None:
    both_started = anyio.Event()
    inside = 0

    async def task(value: int) -> int:
        nonlocal inside
        inside += 1
        if inside == 2:
            both_started.set()
        try:
            await both_started.wait()
            await anyio.sleep_forever()
        finally:
            raise Fatal(value)

    caught: BaseException | None = None

    async def run(scope: anyio.CancelScope) -> None:
        nonlocal caught
        with scope:
            try:
                await Pipeline([Stage("A", 2, [task])]).run(range(2))
            except BaseExceptionGroup as error:
                caught = error

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        group.start_soon(run, scope)
        await both_started.wait()
        scope.cancel()
    assert isinstance(caught, BaseExceptionGroup)
    assert sorted(error.args for error in caught.exceptions) == [(0,), (1,)]


async def test_a_fatal_error_of_the_source_is_raised_unwrapped() -> None:
    def source() -> Any:
        yield 1
        raise Fatal

    with pytest.raises(Fatal):
        await Pipeline([Stage("A", 1, [same])]).run(source())


async def test_a_fatal_error_of_a_callback_or_retry_hook_ends_the_run() -> None:
    async def fatal(*args: Any) -> None:
        raise Fatal

    def fatal_at_once(*args: Any) -> None:
        raise Fatal

    async def fail(value: Any) -> None:
        raise ValueError

    def hook(error: Exception) -> bool:
        raise Fatal

    with pytest.raises(Fatal):
        await Pipeline([Stage("A", 1, [same], on_success=fatal)]).run([1])
    with pytest.raises(Fatal):
        await Pipeline([Stage("A", 1, [same], on_success=fatal_at_once)]).run([1])
    with pytest.raises(Fatal):
        await Pipeline([Stage("A", 1, [fail], RetryPolicy(on=hook))]).run([1])


async def test_a_fatal_error_in_a_later_attempt_ends_the_run() -> None:
    attempts = 0

    async def fail(value: Any) -> None:
        nonlocal attempts
        attempts += 1
        raise ValueError if attempts == 1 else Fatal

    with pytest.raises(Fatal):
        await Pipeline([Stage("A", 1, [fail], task_wait_seconds=0)]).run([1])


INTERRUPT = """
import signal, sys
import anyio, {backend}
from antflow import Pipeline, Stage

# A shell ignores SIGINT in processes that it starts in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def task(value):
    await anyio.sleep(0)
    if value == 5:
        {statement}
    await anyio.sleep(0)
    return value

pipeline = Pipeline([Stage("A", 3, [task])])

async def main():
    await pipeline.run(range(100))

try:
    {backend}.run({main})
except (KeyboardInterrupt, SystemExit) as error:
    print(type(error).__name__, len(pipeline.failures), len(pipeline.results) < 100)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("signal.raise_signal(signal.SIGINT)", "KeyboardInterrupt"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_interrupts_are_raised_unwrapped(backend: str, statement: str, name: str) -> None:
    """The script runs in a process of its own, because these exceptions break asyncio's loop."""
    main = "main()" if backend == "asyncio" else "main"
    script = INTERRUPT.format(backend=backend, statement=statement, main=main)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    kind, failures, stopped = done.stdout.split()
    assert (kind, stopped) == (name, "True"), done.stderr
    # If the loop itself cancels its tasks, Python 3.10 cannot tell this from a stray cancellation.
    if backend == "trio" or sys.version_info >= (3, 11):
        assert failures == "0"


class TestNativeCancellation:
    """Cancellation by asyncio's own `Task.cancel()`, and by cancelled futures."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_cancelling_the_loop_task_of_the_caller_ends_the_run(self) -> None:
        cancelled = []

        async def task(value: int) -> None:
            try:
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                cancelled.append(value)
                raise

        async def source() -> AsyncIterator[int]:
            yield 0
            yield 1
            await anyio.sleep_forever()

        pipeline = Pipeline([Stage("A", 2, [task])])
        for items in (range(100), source()):
            cancelled.clear()
            running = asyncio.ensure_future(pipeline.run(items))
            await anyio.wait_all_tasks_blocked()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert sorted(cancelled) == [0, 1]
            assert pipeline.failures == []

    async def test_a_task_that_awaits_a_cancelled_future_fails_its_item_only(self) -> None:
        async def task(value: int) -> int:
            if value % 5 == 2:
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            return value

        for retry in ("per_task", "per_stage"):
            pipeline = Pipeline([Stage("A", 3, [task], retry)])  # type: ignore[arg-type]
            results = await pipeline.run(range(20))
            assert results.values == [value for value in range(20) if value % 5 != 2]
            # Not an Exception, so it is not retried.
            assert {item.attempts for item in results.failures} == {1}
            assert {item.error_type for item in results.failures} == {"CancelledError"}

    async def test_a_stray_cancellation_in_skip_if_fails_its_item_only(self) -> None:
        async def skip_if(value: int) -> bool:
            raise asyncio.CancelledError

        results = await Pipeline([Stage("A", 1, [same], skip_if=skip_if)]).run([1, 2])
        assert len(results.failures) == 2

    async def test_a_stray_cancellation_in_an_async_callback_is_a_callback_error(self) -> None:
        async def callback(event: Any) -> None:
            raise asyncio.CancelledError

        tracker = StatusTracker(callback)
        results = await Pipeline([Stage("A", 1, [same])], status_tracker=tracker).run([1, 2])
        assert results.values == [1, 2]
        assert tracker.callback_errors == 6

    async def test_a_stray_cancellation_in_the_source_is_raised(self) -> None:
        async def source() -> AsyncIterator[int]:
            yield 1
            raise asyncio.CancelledError

        pipeline = Pipeline([Stage("A", 1, [same])])
        with pytest.raises(PipelineError, match="the source raised CancelledError") as raised:
            await pipeline.run(source())
        assert isinstance(raised.value.__cause__, asyncio.CancelledError)
        assert pipeline.results.values == [1]

    async def test_a_stray_cancellation_in_a_source_does_not_end_a_group_silently(self) -> None:
        async def source() -> AsyncIterator[int]:
            yield 1
            raise asyncio.CancelledError

        errors: list[BaseException] = []

        async def run() -> None:
            try:
                await Pipeline([Stage("A", 1, [same])]).run(source())
            except BaseException as error:
                errors.append(error)
                raise

        with pytest.raises(Exception, match=r"TaskGroup|Trio"):
            async with anyio.create_task_group() as group:
                group.start_soon(run)
        assert [type(error) for error in errors] == [PipelineError]

    async def test_a_stray_cancellation_in_a_sync_callback_is_a_callback_error(
        self,
    ) -> None:
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()

        def callback(*args: Any) -> None:
            cancelled.result()

        tracker = StatusTracker(on_success=callback)
        results = await Pipeline([Stage("A", 2, [same])], status_tracker=tracker).run(range(9))
        assert len(results) == tracker.callback_errors == 9

    @pytest.mark.parametrize("scope", ["task", "stage"])
    async def test_a_stray_cancellation_in_a_retry_hook_fails_its_item_only(
        self, scope: Any
    ) -> None:
        async def fail(value: int) -> int:
            if value == 3:
                raise ValueError
            return value

        def hook(error: Exception) -> bool:
            raise asyncio.CancelledError

        policy = RetryPolicy(scope=scope, on=hook)
        results = await Pipeline([Stage("A", 2, [fail], policy)]).run(range(9))
        assert (len(results), len(results.failures)) == (8, 1)

    async def test_a_group_of_stray_cancellations_fails_its_item_only(self) -> None:
        async def task(value: int) -> int:
            if value == 3:
                raise BaseExceptionGroup("g", [asyncio.CancelledError(), ValueError()])
            return value

        results = await Pipeline([Stage("A", 2, [task])]).run(range(9))
        assert (len(results), len(results.failures)) == (8, 1)

    async def test_a_run_whose_workers_are_cancelled_raises(self) -> None:
        """A task group ignores a cancelled child, so the run itself checks for unfinished items."""

        async def task(value: int) -> int:
            if value == 3:
                for other in asyncio.all_tasks() - {asyncio.current_task()}:
                    if other.get_name() in ("A-W0", "B-W0"):
                        other.cancel()
                await anyio.sleep_forever()
            return value

        # The worker of the second stage is cancelled while it waits for an item.
        pipeline = Pipeline([Stage("A", 1, [task]), Stage("B", 1, [same])])
        with pytest.raises(PipelineError, match=r"of \d+ items were not finished: something out"):
            await pipeline.run(range(9))

    async def test_a_cancellation_that_an_item_never_undoes_is_not_that_of_the_next(self) -> None:
        """As with a time limit that cancels the task it is used in, and converts what comes out."""

        async def task(value: int) -> int:
            if value % 3 == 2:
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            loop_task = asyncio.current_task()
            assert loop_task is not None
            asyncio.get_running_loop().call_soon(loop_task.cancel)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if value % 3:
                    raise TimeoutError from None
            return value

        for stage in (
            Stage("A", 1, [task], task_attempts=1),
            Stage("A", 1, [same, task], task_attempts=1),
            Stage("A", 1, [task], retry="per_stage", stage_attempts=1),
        ):
            results = await Pipeline([stage]).run(range(12))
            assert results.values == [0, 3, 6, 9]
            assert sorted((item.value % 3, item.error_type) for item in results.failures) == [
                *[(1, "TimeoutError")] * 4,
                *[(2, "CancelledError")] * 4,
            ]

    async def test_scopes_and_groups_work_after_an_item_that_undid_no_cancellation(self) -> None:
        async def fail() -> None:
            raise ValueError("inside")

        async def old_limit() -> None:
            loop_task = asyncio.current_task()
            assert loop_task is not None
            asyncio.get_running_loop().call_soon(loop_task.cancel)
            await asyncio.sleep(60)

        async def task(value: int) -> Any:
            if value % 5 in (0, 1):
                try:
                    await old_limit()
                except asyncio.CancelledError:
                    if value % 5:
                        raise TimeoutError from None
            if value % 5 == 2:
                with anyio.move_on_after(0):
                    await anyio.sleep_forever()
            if value % 5 == 3 and sys.version_info >= (3, 11):
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())
                    await asyncio.sleep(60)
            if value % 5 == 4 and sys.version_info >= (3, 11):
                async with asyncio.timeout(0):
                    await asyncio.sleep(60)
            await checkpoint()
            return value

        stage = Stage("A", 1, [task], task_attempts=1)
        results = await Pipeline([stage]).run([0, 2, 1, 2, 0, 3, 2, 1, 3, 2, 0, 4, 1, 4, 2])
        if sys.version_info >= (3, 11):
            assert results.values == [0, 2, 2, 0, 2, 2, 0, 2]
            assert {item.error_type for item in results.failures} == {
                "TimeoutError",
                "ExceptionGroup",
            }

    async def test_cancelling_a_worker_in_its_task_fails_the_item(self) -> None:
        """It is the only cancellation of a loop task that does not come from the run."""
        workers = []

        async def task(value: int) -> int:
            if value == 1:
                workers.append(asyncio.current_task())
                asyncio.get_running_loop().call_soon(workers[0].cancel)
                await asyncio.sleep(60)
            return value

        results = await Pipeline([Stage("A", 1, [task])]).run(range(4))
        assert results.values == [0, 2, 3]
        assert [item.error_type for item in results.failures] == ["CancelledError"]

    async def test_a_run_in_a_task_that_was_cancelled_before_is_a_run_as_any(self) -> None:
        async def task(value: int) -> int:
            if value == 1:
                raise asyncio.CancelledError
            return value

        async def caller() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            results = await Pipeline([Stage("A", 1, [task])]).run(range(3))
            assert results.values == [0, 2]

        running = asyncio.ensure_future(caller())
        await anyio.wait_all_tasks_blocked()
        running.cancel()
        await running

    async def test_a_loop_that_shuts_down_ends_the_run_whatever_an_item_left_behind(self) -> None:
        outcomes = []

        async def task(value: int) -> int:
            loop_task = asyncio.current_task()
            assert loop_task is not None
            if value == 0:
                asyncio.get_running_loop().call_soon(loop_task.cancel)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if value:
                    outcomes.append(value)
                    raise
            return value

        pipeline = Pipeline([Stage("A", 2, [task])])
        running = asyncio.ensure_future(pipeline.run([0, 1, 2, 3]))
        await anyio.wait_all_tasks_blocked()
        for loop_task in asyncio.all_tasks() - {asyncio.current_task()}:
            if loop_task is running or loop_task.get_name().startswith("A-W"):
                loop_task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert sorted(outcomes) == [1, 2]
        assert pipeline.failures == []

    async def test_a_native_cancellation_ends_a_run_whose_callback_waits(self) -> None:
        async def slow(event: Any) -> None:
            await anyio.sleep_forever()

        tracker = StatusTracker(slow)
        running = asyncio.ensure_future(
            Pipeline([Stage("A", 1, [same])], status_tracker=tracker).run([1])
        )
        await anyio.wait_all_tasks_blocked()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert tracker.callback_errors == 0


async def test_a_cancellation_that_is_raised_later_fails_its_item_only() -> None:
    kept: list[BaseException] = []

    async def task(value: int) -> int:
        if not kept:
            with anyio.CancelScope() as scope:
                scope.cancel()
                try:
                    await checkpoint()
                except anyio.get_cancelled_exc_class() as error:
                    kept.append(error)
                    raise
        if value == 1:
            raise kept.pop()
        return value

    results = await Pipeline([Stage("A", 1, [task])]).run(range(3))
    assert results.values == [0, 2]
    assert results.failures[0].error_type in ("Cancelled", "CancelledError")


async def test_a_failure_keeps_no_internal_frame_alive() -> None:
    """Dropping the results frees exceptions and values at once, without the garbage collector."""

    class Value:
        pass

    class Error(Exception):
        pass

    async def fail(value: Value) -> None:
        await checkpoint()
        raise Error

    values = [Value() for _ in range(4)]
    references = [weakref.ref(value) for value in values]
    gc.collect()
    gc.disable()
    try:
        for retry in ("per_task", "per_stage"):
            stage = Stage("A", 2, [same, fail], retry, task_wait_seconds=0)  # type: ignore[arg-type]
            pipeline = Pipeline([stage])
            results = await pipeline.run(values)
            assert len(results.failures) == 4
            errors = [weakref.ref(failure.exception) for failure in results.failures]
            del results, pipeline
            await checkpoint()
            await checkpoint()
            assert [reference() for reference in errors] == [None] * 4
        del values
        assert [reference() for reference in references] == [None] * 4
    finally:
        gc.enable()


@pytest.mark.virtual_time
async def test_a_failure_of_a_cancelled_run_keeps_no_internal_frame_alive() -> None:
    """The error of an item in back-off is freed when the run ends."""
    errors: list[weakref.ref[Exception]] = []

    class Error(Exception):
        pass

    async def fail(value: int) -> None:
        error = Error()
        errors.append(weakref.ref(error))
        await checkpoint()
        try:
            raise error
        finally:
            del error

    gc.collect()
    gc.disable()
    try:
        for tasks in ([fail], [same, fail]):
            for tracker in (None, StatusTracker()):
                stage = Stage("A", 2, tasks, task_wait_seconds=60)
                with anyio.move_on_after(10):
                    await Pipeline([stage], status_tracker=tracker).run(range(2))
        await checkpoint()
        await checkpoint()
        assert [reference() for reference in errors] == [None] * 8
    finally:
        gc.enable()


async def test_a_fatal_error_of_a_handler_keeps_no_internal_frame_alive() -> None:
    class Fatal(BaseException):
        pass

    def handler(event: object) -> None:
        raise Fatal

    pipeline = Pipeline([Stage("A", 1, [same])])
    pipeline.events.subscribe(StatusEvent, handler)
    gc.collect()
    gc.disable()
    try:
        try:
            await pipeline.run([1])
        except Fatal as fatal:
            reference = weakref.ref(fatal)
        await checkpoint()
        await checkpoint()
        assert reference() is None
    finally:
        gc.enable()
