"""Rows 5-10: consumers that exit early, raise or time out, and cancellation from outside."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from antflow import Pipeline, RetryPolicy, Stage
from antflow.testing import Exploration
from faults.kit import (
    STEP_INTERVAL,
    Source,
    at_each_step,
    both_backends,
    count_loop_tasks,
    no_leaked_tasks,
    row,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

# Python 3.10 has no `Task.cancelling()`.
NO_CANCELLING = sys.version_info < (3, 11)
ITEMS = 6

EXITS = "A consumer exits early: no task starts afterwards, and nothing leaks"
CANCELLED = "Cancelled from outside: only the cancellation propagates, counted once; nothing leaks"


class Work:
    """
    A pipeline of two stages whose tasks sleep and sometimes fail, with counters of its calls.

    Args:
        scope: The retry scope of the first stage.
    """

    def __init__(self, scope: Literal["task", "stage"] = "task") -> None:
        self.started = 0
        self.running = 0
        self.tried: set[int] = set()
        policy = RetryPolicy(scope=scope, attempts=2, wait_initial=3, wait_jitter=0)
        self.pipeline = Pipeline(
            [
                Stage("A", 2, [self.uneven, self.flaky], policy, queue_capacity=1),
                Stage("B", 1, [self.uneven], queue_capacity=1),
            ]
        )

    async def uneven(self, value: int) -> int:
        self.started += 1
        self.running += 1
        try:
            await anyio.sleep(value % 3)
        finally:
            self.running -= 1
        return value

    async def flaky(self, value: int) -> int:
        if value % 4 == 1 and value not in self.tried:
            self.tried.add(value)
            raise ValueError(value)
        return value

    async def check_ended(self) -> None:
        """Check that no task is running, and that none starts within an hour of virtual time."""
        assert self.running == 0
        started = self.started
        await anyio.sleep(3600)
        assert self.started == started
        assert self.pipeline.get_stats().items_in_flight == 0


@asynccontextmanager
async def not_entered(stream: Any) -> AsyncIterator[Any]:
    """Yield *stream* without entering it, and do not close it."""
    yield stream


class Canceller:
    """
    The hooks that cancel a part of a run.

    Attributes:
        scope: The scope to cancel.
        task: The asyncio task to cancel natively.
        armed: Whether the run is in the part that may be cancelled.
        fired: Whether a hook has cancelled it.
    """

    scope: CancelScope
    task: asyncio.Future[Any] | None
    armed = fired = False

    def reset(self) -> None:
        self.scope = CancelScope()
        self.task = None
        self.armed = self.fired = False

    def cancel(self, exploration: Exploration) -> None:
        if self.armed:
            self.fired = True
            self.scope.cancel()

    def cancel_natively(self, exploration: Exploration) -> None:
        if self.armed and self.task is not None:
            self.fired = True
            self.task.cancel()

    def cancel_both_ways(self, exploration: Exploration) -> None:
        self.cancel(exploration)
        self.cancel_natively(exploration)


# Cancellation by a scope and, on asyncio only, by `Task.cancel()`.
by_scope_or_natively = pytest.mark.parametrize(
    ("backend", "natively"), [("asyncio", False), ("asyncio", True), ("trio", False)]
)


@row(5, EXITS)
@both_backends
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("retry", ["task", "stage"])
@pytest.mark.parametrize("close", ["enter", "aclosing"])
def test_a_consumer_may_exit_at_any_step(
    backend: str, ordered: bool, retry: Any, close: str
) -> None:
    canceller = Canceller()

    async def main() -> None:
        canceller.reset()
        work = Work(retry)
        source = Source(ITEMS)
        async with no_leaked_tasks():
            stream = work.pipeline.stream(source.awaited(), ordered=ordered, buffer_size=1)
            async with aclosing(stream) if close == "aclosing" else stream:  # type: ignore[type-var]
                canceller.armed = True
                with canceller.scope:
                    async for _ in stream:
                        await checkpoint()
                canceller.armed = False
            assert source.closed or not source.read
        await work.check_ended()

    fired = 0
    for exploration in at_each_step(backend, main, canceller.cancel):
        exploration.run(main)
        fired += canceller.fired
    assert fired > 20 // STEP_INTERVAL


@row(5, EXITS)
@both_backends
def test_a_stream_that_was_not_entered_may_be_abandoned_at_any_step(backend: str) -> None:
    canceller = Canceller()

    async def main() -> None:
        canceller.reset()
        work = Work()
        source = Source(ITEMS)
        before = count_loop_tasks()
        stream = work.pipeline.stream(source.awaited())
        canceller.armed = True
        with canceller.scope:
            async for _ in stream:
                await checkpoint()
        canceller.armed = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del stream
            # After one more step, the event loop keeps no reference to the cancellation that it
            # threw, nor to the frames of its traceback.
            await checkpoint()
            gc.collect()
        await anyio.sleep(1)
        assert count_loop_tasks() == before
        assert source.closed or not source.read
        await work.check_ended()

    for exploration in at_each_step(backend, main, canceller.cancel, interval=3):
        exploration.run(main)


class ConsumerError(BaseException):
    """A `BaseException` of the consumer."""


ERRORS: list[BaseException] = [
    ValueError("mine"),
    ConsumerError("mine"),
    KeyboardInterrupt("mine"),
    SystemExit("mine"),
    GeneratorExit("mine"),
    StopIteration("mine"),
    StopAsyncIteration("mine"),
    ExceptionGroup("mine", [ValueError(), ExceptionGroup("inner", [OSError()])]),
    asyncio.CancelledError("mine"),
]


def open_block(block: str, pipeline: Pipeline, source: Any) -> Any:
    """Return the context manager *block* that processes *source* in *pipeline*."""
    if block == "stream":
        return pipeline.stream(source, buffer_size=1)
    return pipeline.open(source) if block == "open" else pipeline


async def use_block(block: str, entered_block: Any) -> None:
    """Use *block* until all items are finished."""
    if block == "stream":
        async for _ in entered_block:
            await checkpoint()
    else:
        if block == "pipeline":
            await entered_block.feed(Source(ITEMS).awaited())
        await entered_block.join()


@row(6, "A consumer raises: its own exception propagates, not in a group")
@both_backends
@pytest.mark.parametrize("block", ["stream", "pipeline", "open"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_of_a_consumer_at_any_step_propagates_as_itself(
    backend: str, block: str, error: BaseException
) -> None:
    canceller = Canceller()

    async def main() -> None:
        canceller.reset()
        work = Work()
        caught = None
        async with no_leaked_tasks():
            try:
                async with open_block(
                    block, work.pipeline, Source(ITEMS).awaited()
                ) as entered_block:
                    canceller.armed = True
                    with canceller.scope:
                        await use_block(block, entered_block)
                    canceller.armed = False
                    raise error
            except BaseException as raised:
                caught = raised
        assert caught is error
        error.__traceback__ = error.__context__ = None
        await work.check_ended()

    interval = 1 if isinstance(error, ValueError) else 7
    for exploration in at_each_step(backend, main, canceller.cancel, interval):
        exploration.run(main)


@row(7, "A timeout around one wait: the stream continues, and no result is lost")
@by_scope_or_natively
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("buffer_size", [0, 1])
@pytest.mark.parametrize("entered", [True, False])
def test_one_wait_may_be_cancelled_at_any_step(
    backend: str, ordered: bool, buffer_size: int, entered: bool, natively: bool
) -> None:
    canceller = Canceller()

    async def wait_for(stream: Any) -> Any:
        """Return the next result, or None if the wait was cancelled."""
        canceller.armed = True
        try:
            if natively:
                canceller.task = asyncio.ensure_future(anext(stream))
                try:
                    return await canceller.task
                except asyncio.CancelledError:
                    return None
            canceller.scope = CancelScope()
            with canceller.scope:
                return await anext(stream)
            return None
        finally:
            canceller.armed = False

    async def main() -> None:
        canceller.reset()
        work = Work()
        received = []
        async with no_leaked_tasks():
            stream = work.pipeline.stream(range(ITEMS), ordered=ordered, buffer_size=buffer_size)
            async with stream if entered else not_entered(stream):
                while True:
                    try:
                        result = await wait_for(stream)
                    except StopAsyncIteration:
                        break
                    if result is not None:
                        received.append(result.value)
        assert (received if ordered else sorted(received)) == list(range(ITEMS))

    fired = 0
    hook = canceller.cancel_natively if natively else canceller.cancel
    for exploration in at_each_step(backend, main, hook):
        exploration.run(main)
        fired += canceller.fired
    assert fired > 20 // STEP_INTERVAL


async def call_run(pipeline: Pipeline) -> None:
    await pipeline.run(Source(ITEMS).awaited())


async def call_feed(pipeline: Pipeline) -> None:
    await pipeline.feed(range(ITEMS))


async def enter_stream(pipeline: Pipeline) -> None:
    async with pipeline.stream(Source(ITEMS).awaited(), buffer_size=1) as results:
        await use_block("stream", results)


async def close_stream(pipeline: Pipeline) -> None:
    async with aclosing(pipeline.stream(range(ITEMS), buffer_size=0)) as results:  # type: ignore[type-var]
        await use_block("stream", results)


async def enter_block(pipeline: Pipeline) -> None:
    async with pipeline:
        await use_block("pipeline", pipeline)
        await pipeline.feed(range(ITEMS), target_stage="B")


async def enter_open(pipeline: Pipeline) -> None:
    async with pipeline.open(range(ITEMS)) as run:
        await run.feed(range(ITEMS), target_stage="B")


WAYS = [call_run, call_feed, enter_stream, close_stream, enter_block, enter_open]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def natively_cancelled() -> Iterator[Any]:
    """
    Yield each way with False, and with True if a scope may be cancelled at the same time.

    With True, the cancellation by `Task.cancel()` must propagate, which only Python 3.11+ can
    detect. For runs inside a block, anyio 4.16 counts wrongly: if a task of a cancelled task group
    cancels its own group, the cancellation is counted for the host task of the outer group.
    """
    for way in WAYS:
        yield pytest.param(way, False, id=way.__name__)
    if not NO_CANCELLING:
        for way in (call_run, call_feed):
            yield pytest.param(way, True, id=f"{way.__name__}-scope_as_well")


@row(8, CANCELLED)
@both_backends
@ways
@pytest.mark.parametrize("retry", ["task", "stage"])
def test_an_enclosing_scope_may_be_cancelled_at_any_step(
    backend: str, way: Callable[[Pipeline], Awaitable[None]], retry: Any
) -> None:
    canceller = Canceller()

    async def main() -> None:
        canceller.reset()
        work = Work(retry)
        async with no_leaked_tasks():
            canceller.armed = True
            with canceller.scope:
                await way(work.pipeline)
            canceller.armed = False
            if backend == "asyncio" and not NO_CANCELLING:
                task: Any = asyncio.current_task()
                assert task.cancelling() == 0
        await work.check_ended()
        assert (await work.pipeline.run(range(2))).values == [0, 1]

    fired = 0
    for exploration in at_each_step(backend, main, canceller.cancel):
        exploration.run(main)
        fired += canceller.fired
    assert fired > 20 // STEP_INTERVAL


@row(8, CANCELLED)
@pytest.mark.parametrize("retry", ["task", "stage"])
@pytest.mark.parametrize(("way", "scope_as_well"), [*natively_cancelled()])
def test_the_enclosing_task_may_be_cancelled_natively_at_any_step(
    way: Callable[[Pipeline], Awaitable[None]], scope_as_well: bool, retry: Any
) -> None:
    canceller = Canceller()

    async def main() -> None:
        canceller.reset()
        work = Work(retry)
        task: Any = asyncio.current_task()
        canceller.task = task
        cancelled = False
        async with no_leaked_tasks():
            try:
                canceller.armed = True
                with canceller.scope:
                    await way(work.pipeline)
            except asyncio.CancelledError:
                cancelled = True
            canceller.armed = False
            assert cancelled == canceller.fired
            if cancelled and not NO_CANCELLING:
                assert task.cancelling() == 1
                assert task.uncancel() == 0
        await work.check_ended()
        assert (await work.pipeline.run(range(2))).values == [0, 1]

    fired = 0
    hook = canceller.cancel_both_ways if scope_as_well else canceller.cancel_natively
    for exploration in at_each_step("asyncio", main, hook):
        exploration.run(main)
        fired += canceller.fired
    assert fired > 20 // STEP_INTERVAL


@row(9, "1,000 busy workers: each is cancelled, and nothing leaks")
async def test_a_thousand_busy_workers_are_cancelled() -> None:
    """benchmarks/cancel.py measures the cost."""
    busy = anyio.Event()
    started = cancelled = 0

    async def task(value: int) -> None:
        nonlocal started, cancelled
        started += 1
        if started == 1000:
            busy.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled += 1
            raise

    pipeline = Pipeline([Stage("A", 1000, [task])])
    scope = CancelScope()

    async def run() -> None:
        with scope:
            await pipeline.run(range(2000))

    async with no_leaked_tasks(), anyio.create_task_group() as group:
        group.start_soon(run)
        await busy.wait()
        scope.cancel()
    assert (started, cancelled) == (1000, 1000)
    assert scope.cancelled_caught
    assert pipeline.get_stats().items_in_flight == 0


@row(10, "Cancelled during a back-off: no further attempt, and no further wait")
@by_scope_or_natively
@pytest.mark.parametrize("retry", ["task", "stage"])
def test_a_back_off_may_be_cancelled_at_any_step(backend: str, retry: Any, natively: bool) -> None:
    canceller = Canceller()
    attempts: dict[int, list[float]] = {}
    # The time of the cancellation, and by value the attempts so far of the items in a back-off.
    now = 0.0
    waiting: dict[int, int] = {}

    async def fail(value: int) -> None:
        attempts.setdefault(value, []).append(anyio.current_time())
        raise ValueError(value)

    def record_and_cancel(exploration: Exploration) -> None:
        nonlocal now
        now = anyio.current_time() if backend == "asyncio" else trio_time()
        for value, times in attempts.items():
            if now < times[-1] + 60 * value:
                waiting[value] = len(times)
        (canceller.cancel_natively if natively else canceller.cancel)(exploration)

    def trio_time() -> float:
        import trio

        return trio.current_time()

    async def main() -> None:
        canceller.reset()
        attempts.clear()
        waiting.clear()
        canceller.task = asyncio.current_task() if natively else None
        policy = RetryPolicy(
            scope=retry, attempts=4, on=lambda error: 60 * error.args[0], wait_jitter=0
        )
        pipeline = Pipeline([Stage("A", 3, [fail], policy)])
        async with no_leaked_tasks():
            canceller.armed = True
            try:
                with canceller.scope:
                    await pipeline.run([1, 2, 3])
            except asyncio.CancelledError:
                assert natively
            canceller.armed = False
        if canceller.fired:
            assert anyio.current_time() == now
            for value, count in waiting.items():
                assert len(attempts[value]) == count

    fired = 0
    for exploration in at_each_step(backend, main, record_and_cancel):
        exploration.run(main)
        fired += canceller.fired and bool(waiting)
    assert fired > 10 // STEP_INTERVAL
