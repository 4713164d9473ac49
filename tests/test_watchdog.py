"""The watchdog: tasks that block the event loop, and tasks that swallow cancellations."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import types
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from antflow import Pipeline, PipelineError, Stage, StageValidationError
from antflow._backend.cancellation_watch import CancellationWatch
from antflow._state.worker import Worker
from antflow._tasks import watchdog
from antflow._tasks.watchdog import Watchdog, drive


async def same(value: Any) -> Any:
    await checkpoint()
    return value


async def sleep_shielded(seconds: float) -> None:
    """Sleep, shielded from cancellation."""
    with CancelScope(shield=True):
        await anyio.sleep(seconds)


@pytest.mark.parametrize("option", ["slow_callback_duration", "cancel_grace"])
@pytest.mark.parametrize("value", ["1", True, -1, float("nan"), float("inf")])
def test_an_option_that_is_not_a_number_of_seconds_is_rejected(option: str, value: Any) -> None:
    with pytest.raises(StageValidationError, match=f"Pipeline: {option} must be a"):
        Pipeline([Stage("A", 1, [same])], **{option: value})


def test_zero_is_rejected_for_slow_callback_duration_only() -> None:
    with pytest.raises(StageValidationError, match="slow_callback_duration must be a number above"):
        Pipeline([Stage("A", 1, [same])], slow_callback_duration=0)
    Pipeline([Stage("A", 1, [same])], cancel_grace=0)


class Compiled:
    """Like an async function of Cython, which does not return one of Python's own coroutines."""

    __class__ = property(lambda self: types.FunctionType)  # type: ignore[assignment]
    __code__ = types.SimpleNamespace(co_flags=inspect.CO_COROUTINE)
    __signature__ = inspect.signature(same)
    __name__ = "compiled"

    def __call__(self, value: Any) -> Awaitable[Any]:
        class Result:
            def __await__(self) -> Generator[Any, Any, Any]:
                return same(value).__await__()

        return Result()


async def test_watched_tasks_have_the_usual_outcomes() -> None:
    attempts = 0
    contexts: list[Any] = []

    async def flaky(value: int) -> int:
        nonlocal attempts
        attempts += 1
        try:
            return await anyio.to_thread.run_sync(int, "x" if attempts == 1 else str(value))
        except ValueError as error:
            contexts.append(error.__context__)
            raise

    def plain(value: int) -> Awaitable[int]:
        return same(value)

    async def odd_fails(value: int) -> int:
        if value % 2:
            raise KeyError(value)
        return value

    stages = [
        Stage("A", 1, [flaky, plain, Compiled()], task_wait_seconds=0),
        Stage("B", 2, [odd_fails], task_attempts=1, task_timeout=60),
        Stage("C", 2, [same, same], task_concurrency_limits={"same": 1}),
    ]
    pipeline = Pipeline(stages, slow_callback_duration=60, cancel_grace=0)
    results = await pipeline.run(range(6))
    assert results.values == [0, 2, 4]
    assert [failed.error_type for failed in results.failures] == ["KeyError"] * 3
    assert attempts == 7
    assert contexts == [None]


async def test_a_failure_of_a_watched_task_keeps_no_frame_alive() -> None:
    errors: list[weakref.ref[BaseException]] = []

    class Error(Exception):
        pass

    async def fail(value: int) -> None:
        error = Error()
        errors.append(weakref.ref(error))
        try:
            with anyio.move_on_after(0):
                await anyio.sleep_forever()
            raise error
        finally:
            del error

    pipeline = Pipeline([Stage("A", 1, [fail], task_attempts=1)], cancel_grace=0)
    gc.collect()
    gc.disable()
    try:
        results = await pipeline.run(range(2))
        assert len(results.failures) == 2
        del results, pipeline
        await checkpoint()
        await checkpoint()
        assert [reference() for reference in errors] == [None, None]
    finally:
        gc.enable()


def test_closing_the_driver_closes_the_watched_task() -> None:
    closed = False

    @types.coroutine
    def wait() -> Generator[None, None, None]:
        yield

    async def task() -> None:
        nonlocal closed
        try:
            await wait()
        finally:
            closed = True

    driven = drive(task(), Worker("A-W0", "A", 0, "task"), Watchdog(1, None))
    driven.send(None)
    driven.close()
    assert closed


class TestSlowSteps:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """Return a clock that only the test advances."""
        now = [100.0]
        monkeypatch.setattr(watchdog, "perf_counter", lambda: now[0])
        return now

    async def test_a_task_that_blocks_the_loop_is_logged(
        self, clock: list[float], caplog: pytest.LogCaptureFixture
    ) -> None:
        async def compute(value: str) -> str:
            await checkpoint()
            if value == "c":
                clock[0] += 0.75
            await checkpoint()
            return value

        pipeline = Pipeline([Stage("A", 1, [compute])], slow_callback_duration=0.5)
        assert (await pipeline.run(list("abcd"))).values == list("abcd")
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("antflow", "WARNING")
        assert record.getMessage().startswith(
            "item 2 in task 'compute' of stage 'A' blocked the event loop for 0.750 s, "
            "more than the 0.5 s"
        )

    async def test_a_slow_step_that_ends_or_fails_the_task_is_logged(
        self, clock: list[float], caplog: pytest.LogCaptureFixture
    ) -> None:
        async def compute(value: int) -> int:
            clock[0] += 2
            if value:
                raise ValueError
            return value

        stage = Stage("A", 1, [compute], task_attempts=1)
        await Pipeline([stage], slow_callback_duration=1).run([0, 1])
        assert [record.getMessage()[:6] for record in caplog.records] == ["item 0", "item 1"]

    async def test_waiting_is_not_counted(
        self, clock: list[float], caplog: pytest.LogCaptureFixture
    ) -> None:
        async def fetch(value: int) -> int:
            await anyio.wait_all_tasks_blocked()
            return value

        async def advance_clock() -> None:
            clock[0] += 1000

        async with anyio.create_task_group() as group:
            group.start_soon(Pipeline([Stage("A", 1, [fetch])], slow_callback_duration=1).run, [1])
            await anyio.wait_all_tasks_blocked()
            group.start_soon(advance_clock)
        assert not caplog.records


Cancelling = Callable[[Pipeline], Awaitable[None]]


async def cancel_by_scope(pipeline: Pipeline) -> None:
    with anyio.move_on_after(5) as scope:
        await pipeline.run(range(9))
    assert scope.cancelled_caught


async def cancel_by_shutdown(pipeline: Pipeline) -> None:
    async with anyio.create_task_group() as group:

        async def shut_down() -> None:
            await anyio.sleep(5)
            await pipeline.shutdown(drain=False)

        group.start_soon(shut_down)
        with pytest.raises(PipelineError, match="before everything was finished"):
            await pipeline.run(range(9))


@pytest.mark.virtual_time
class TestSwallowedCancellations:
    """The helpers cancel each run after five seconds."""

    async def test_a_task_that_swallows_every_cancellation_is_abandoned(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        for cancel in (cancel_by_scope, cancel_by_shutdown):
            caplog.clear()
            await self.swallow(cancel)
            assert [record.name for record in caplog.records] == ["antflow"] * 2
            for record in caplog.records:
                message = record.getMessage()
                assert message.startswith("item ")
                assert "in task 'swallow' of stage 'A' still ran 0 s after the run was" in message
                assert "cancelled (cancel_grace), and is abandoned." in message

    @staticmethod
    async def swallow(cancel: Cancelling) -> None:
        received: dict[int, int] = {}
        closed = []

        async def swallow(value: int) -> None:
            received[value] = 0
            try:
                while True:
                    try:
                        await anyio.sleep_forever()
                    except anyio.get_cancelled_exc_class():
                        received[value] += 1
            finally:
                closed.append(value)

        pipeline = Pipeline([Stage("A", 2, [swallow]), Stage("B", 1, [same])], cancel_grace=0)
        await cancel(pipeline)
        # A task receives the cancellation in its wait and in the next one, then it is abandoned.
        assert received == {0: 2, 1: 2}
        assert sorted(closed) == [0, 1]
        assert not pipeline.failures

    async def test_a_task_is_not_abandoned_during_the_grace_period(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        received = []

        async def swallow(value: int) -> None:
            while True:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    received.append(anyio.current_time() - began)
                    await sleep_shielded(3)

        began = anyio.current_time()
        await cancel_by_scope(Pipeline([Stage("A", 1, [swallow])], cancel_grace=4))
        assert received == pytest.approx([5, 8])
        assert anyio.current_time() - began == pytest.approx(11)
        assert len(caplog.records) == 1

    async def test_a_task_that_ends_within_the_grace_period_is_not_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        ended = []

        async def late(value: int) -> int:
            try:
                await anyio.sleep_forever()
            finally:
                await sleep_shielded(3)
                ended.append(value)

        await cancel_by_scope(Pipeline([Stage("A", 1, [late])], cancel_grace=5))
        assert ended == [0]
        assert not caplog.records

    async def test_without_cancel_grace_no_task_is_abandoned(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        received = 0

        async def stubborn(value: int) -> None:
            nonlocal received
            while received < 3:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    received += 1

        await cancel_by_scope(Pipeline([Stage("A", 1, [stubborn])], slow_callback_duration=60))
        assert received == 3
        assert not caplog.records

    async def test_cancel_scopes_of_the_task_do_not_count(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def impatient(value: int) -> int:
            for _ in range(3):
                with anyio.move_on_after(1):
                    await anyio.sleep_forever()
            return value

        pipeline = Pipeline([Stage("A", 3, [impatient])], cancel_grace=0)
        assert (await pipeline.run(range(3))).values == [0, 1, 2]
        assert not caplog.records

    async def test_a_shielded_timeout_of_the_task_holds_after_the_grace_period(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        cleaned = []

        async def tidy(value: int) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.move_on_after(3, shield=True):
                    await anyio.sleep_forever()
                cleaned.append(value)

        await cancel_by_scope(Pipeline([Stage("A", 1, [tidy])], cancel_grace=1))
        assert cleaned == [0]
        assert not caplog.records

    async def test_an_abandoned_task_may_clean_up_in_a_shielded_scope(self) -> None:
        cleaned = []

        async def tidy(value: int) -> None:
            try:
                while True:
                    try:
                        await anyio.sleep_forever()
                    except anyio.get_cancelled_exc_class():
                        pass
            finally:
                await sleep_shielded(3)
                cleaned.append(value)

        await cancel_by_scope(Pipeline([Stage("A", 1, [tidy])], cancel_grace=0))
        assert cleaned == [0]

    async def test_a_task_that_swallows_generator_exit_is_dropped(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        ignored: list[Any] = []
        monkeypatch.setattr(sys, "unraisablehook", ignored.append)

        async def immortal(value: int) -> None:
            while True:
                with suppress(BaseException):
                    await anyio.Event().wait()

        pipeline = Pipeline([Stage("A", 1, [immortal])], cancel_grace=0)
        await cancel_by_scope(pipeline)
        assert "ignored GeneratorExit" in str(ignored[0].exc_value)
        assert len(caplog.records) == 1
        # Other runs are not affected.
        again = Pipeline([Stage("A", 1, [same])])
        assert (await again.run(range(3))).values == [0, 1, 2]

    async def test_without_cancel_grace_the_log_names_the_tasks_that_still_run(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def stay(value: int) -> None:
            await sleep_shielded(30)

        began = anyio.current_time()
        await cancel_by_scope(Pipeline([Stage("A", 7, [stay])]))
        assert anyio.current_time() - began == pytest.approx(30)
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("antflow", "WARNING")
        message = record.getMessage()
        assert message.startswith("the run was cancelled 10 s ago, and waits for item ")
        assert message.count("in task 'stay' of stage 'A', ") == 5
        assert ", and 2 more. A task ends late if" in message

    async def test_the_log_names_callbacks_that_still_run(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def stay(*args: Any) -> None:
            await sleep_shielded(30)

        await cancel_by_scope(Pipeline([Stage("A", 1, [same], on_success=stay)]))
        (record,) = caplog.records
        assert "waits for a callback of worker 'A-W0'. A task" in record.getMessage()


class TestNativeCancellation:
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_a_native_cancellation_starts_the_grace_period(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def now(pipeline: Pipeline) -> None:
            running = asyncio.ensure_future(pipeline.run(range(9)))
            await anyio.wait_all_tasks_blocked()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        await TestSwallowedCancellations.swallow(now)
        assert len(caplog.records) == 2

    async def test_a_cancellation_after_the_release_does_not_trigger_the_watch(self) -> None:
        calls: list[None] = []
        watch = CancellationWatch(lambda: calls.append(None))
        waiting = asyncio.ensure_future(watch.wait())
        await anyio.wait_all_tasks_blocked()
        watch.release()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not watch.triggered
        assert not calls


async def test_an_abandoned_task_receives_errors_while_it_cleans_up() -> None:
    """What an abandoned task awaits may raise, as in any other task."""
    seen = []
    inside = anyio.Event()

    async def tidy(value: int) -> None:
        try:
            while True:
                try:
                    inside.set()
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    pass
        finally:
            with CancelScope(shield=True):
                try:
                    await anyio.to_thread.run_sync(int, "x")
                except ValueError as error:
                    seen.append(error)
                    raise

    pipeline = Pipeline([Stage("A", 1, [tidy])], cancel_grace=0)
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.run, [1])
        await inside.wait()
        group.cancel_scope.cancel()
    assert len(seen) == 1
    assert not pipeline.failures
