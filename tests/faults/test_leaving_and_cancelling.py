"""Rows 5-10: consumers that leave, raise or lose patience, and cancellation from outside."""

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
from faults.kit import EVERY, Source, at_each_step, both, living_tasks, no_task_left, row

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

# What `Task.cancelling` would say; Python 3.10 does not count.
NOT_COUNTED = sys.version_info < (3, 11)
ITEMS = 6


class Work:
    """
    Two stages whose tasks take their time, fail now and then, and know how many are running.

    Args:
        scope: What is tried again.
    """

    def __init__(self, scope: Literal["task", "stage"] = "task") -> None:
        self.begun = 0
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
        self.begun += 1
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

    async def has_ended(self) -> None:
        """Check that nothing is under way, and that nothing begins, however long one waits."""
        assert self.running == 0
        begun = self.begun
        await anyio.sleep(3600)
        assert self.begun == begun
        assert self.pipeline.get_stats().items_in_flight == 0


@asynccontextmanager
async def bare(stream: Any) -> AsyncIterator[Any]:
    """Do not enter *stream*, and let nobody close it."""
    yield stream


class Hand:
    """
    What a hook reaches into a run with.

    Attributes:
        scope: What it cancels.
        task: The task that it cancels natively.
        inside: Whether the run is where it may be touched.
        used: Whether it was.
    """

    scope: CancelScope
    task: asyncio.Future[Any] | None
    inside = used = False

    def begin(self) -> None:
        self.scope = CancelScope()
        self.task = None
        self.inside = self.used = False

    def cancel(self, exploration: Exploration) -> None:
        if self.inside:
            self.used = True
            self.scope.cancel()

    def cancel_natively(self, exploration: Exploration) -> None:
        if self.inside and self.task is not None:
            self.used = True
            self.task.cancel()

    def cancel_both_ways(self, exploration: Exploration) -> None:
        self.cancel(exploration)
        self.cancel_natively(exploration)


# How a wait is ended: by a scope, or, which only asyncio has, by `Task.cancel()`.
by_scope_or_natively = pytest.mark.parametrize(
    ("backend", "natively"), [("asyncio", False), ("asyncio", True), ("trio", False)]
)


@row(5, "A consumer leaves early: nothing begins afterwards, and nothing is left")
@both
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("retry", ["task", "stage"])
@pytest.mark.parametrize("close", ["enter", "aclosing"])
def test_a_consumer_may_leave_at_any_step(
    backend: str, ordered: bool, retry: Any, close: str
) -> None:
    hand = Hand()

    async def main() -> None:
        hand.begin()
        work = Work(retry)
        source = Source(ITEMS)
        async with no_task_left():
            stream = work.pipeline.stream(source.awaited(), ordered=ordered, buffer_size=1)
            async with aclosing(stream) if close == "aclosing" else stream:  # type: ignore[type-var]
                hand.inside = True
                with hand.scope:
                    async for _ in stream:
                        await checkpoint()
                hand.inside = False
            assert source.closed or not source.read
        await work.has_ended()

    used = 0
    for exploration in at_each_step(backend, main, hand.cancel):
        exploration.run(main)
        used += hand.used
    assert used > 20 // EVERY


@row(5, "A consumer leaves early: nothing begins afterwards, and nothing is left")
@both
def test_a_loop_that_was_not_entered_may_be_left_at_any_step(backend: str) -> None:
    hand = Hand()

    async def main() -> None:
        hand.begin()
        work = Work()
        source = Source(ITEMS)
        before = living_tasks()
        stream = work.pipeline.stream(source.awaited())
        hand.inside = True
        with hand.scope:
            async for _ in stream:
                await checkpoint()
        hand.inside = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del stream
            # The loop lets go of the cancellation that it threw, and of the frames it has met.
            await checkpoint()
            gc.collect()
        await anyio.sleep(1)
        assert living_tasks() == before
        assert source.closed or not source.read
        await work.has_ended()

    for exploration in at_each_step(backend, main, hand.cancel, every=3):
        exploration.run(main)


class OwnError(BaseException):
    """What a consumer may raise besides an Exception."""


ERRORS: list[BaseException] = [
    ValueError("mine"),
    OwnError("mine"),
    KeyboardInterrupt("mine"),
    SystemExit("mine"),
    GeneratorExit("mine"),
    StopIteration("mine"),
    StopAsyncIteration("mine"),
    ExceptionGroup("mine", [ValueError(), ExceptionGroup("inner", [OSError()])]),
    asyncio.CancelledError("mine"),
]


@asynccontextmanager
async def fed(pipeline: Pipeline, source: Any) -> AsyncIterator[Any]:
    async with pipeline:
        await pipeline.feed(source)
        yield pipeline


def opened(place: str, pipeline: Pipeline, source: Any) -> Any:
    """Return the block *place* in which *source* goes through *pipeline*."""
    if place == "stream":
        return pipeline.stream(source, buffer_size=1)
    return pipeline.open(source) if place == "open" else pipeline


async def work_in(place: str, inside: Any) -> None:
    """Do in a block what one does there until all is done."""
    if place == "stream":
        async for _ in inside:
            await checkpoint()
    else:
        if place == "block":
            await inside.feed(Source(ITEMS).awaited())
        await inside.join()


@row(6, "A consumer raises: its own exception comes out, in no group")
@both
@pytest.mark.parametrize("place", ["stream", "block", "open"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_consumer_raises_at_any_step_comes_out_as_itself(
    backend: str, place: str, error: BaseException
) -> None:
    hand = Hand()

    async def main() -> None:
        hand.begin()
        work = Work()
        caught = None
        async with no_task_left():
            try:
                async with opened(place, work.pipeline, Source(ITEMS).awaited()) as inside:
                    hand.inside = True
                    with hand.scope:
                        await work_in(place, inside)
                    hand.inside = False
                    raise error
            except BaseException as raised:
                caught = raised
        assert caught is error
        error.__traceback__ = error.__context__ = None
        await work.has_ended()

    every = 1 if isinstance(error, ValueError) else 7
    for exploration in at_each_step(backend, main, hand.cancel, every):
        exploration.run(main)


@row(7, "A time-out around one wait: the stream goes on, and no result is lost")
@by_scope_or_natively
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("buffer_size", [0, 1])
@pytest.mark.parametrize("entered", [True, False])
def test_one_wait_may_be_ended_at_any_step(
    backend: str, ordered: bool, buffer_size: int, entered: bool, natively: bool
) -> None:
    hand = Hand()

    async def wait_for(stream: Any) -> Any:
        """Return the next result, or None if the wait was ended."""
        hand.inside = True
        try:
            if natively:
                hand.task = asyncio.ensure_future(anext(stream))
                try:
                    return await hand.task
                except asyncio.CancelledError:
                    return None
            hand.scope = CancelScope()
            with hand.scope:
                return await anext(stream)
            return None
        finally:
            hand.inside = False

    async def main() -> None:
        hand.begin()
        work = Work()
        found = []
        async with no_task_left():
            stream = work.pipeline.stream(range(ITEMS), ordered=ordered, buffer_size=buffer_size)
            async with stream if entered else bare(stream):
                while True:
                    try:
                        result = await wait_for(stream)
                    except StopAsyncIteration:
                        break
                    if result is not None:
                        found.append(result.value)
        assert (found if ordered else sorted(found)) == list(range(ITEMS))

    used = 0
    hook = hand.cancel_natively if natively else hand.cancel
    for exploration in at_each_step(backend, main, hook):
        exploration.run(main)
        used += hand.used
    assert used > 20 // EVERY


async def call_run(pipeline: Pipeline) -> None:
    await pipeline.run(Source(ITEMS).awaited())


async def call_feed(pipeline: Pipeline) -> None:
    await pipeline.feed(range(ITEMS))


async def enter_stream(pipeline: Pipeline) -> None:
    async with pipeline.stream(Source(ITEMS).awaited(), buffer_size=1) as results:
        await work_in("stream", results)


async def close_stream(pipeline: Pipeline) -> None:
    async with aclosing(pipeline.stream(range(ITEMS), buffer_size=0)) as results:  # type: ignore[type-var]
        await work_in("stream", results)


async def enter_block(pipeline: Pipeline) -> None:
    async with pipeline:
        await work_in("block", pipeline)
        await pipeline.feed(range(ITEMS), target_stage="B")


async def enter_open(pipeline: Pipeline) -> None:
    async with pipeline.open(range(ITEMS)) as run:
        await run.feed(range(ITEMS), target_stage="B")


WAYS = [call_run, call_feed, enter_stream, close_stream, enter_block, enter_open]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def natively_cancelled() -> Iterator[Any]:
    """
    Give each way with False, and with True where a scope may be cancelled in the same moment.

    Then `Task.cancel()` must come out, as only Python 3.11+ can tell. And where runs live beside
    the user's own code, anyio 4.16 loses count: cancelling a task group in a task of a cancelled
    one is booked on the host of the outer group.
    """
    for way in WAYS:
        yield pytest.param(way, False, id=way.__name__)
    if not NOT_COUNTED:
        for way in (call_run, call_feed):
            yield pytest.param(way, True, id=f"{way.__name__}-scope_as_well")


@row(8, "Cancelled from outside: only the cancellation comes out, counted right, nothing is left")
@both
@ways
@pytest.mark.parametrize("retry", ["task", "stage"])
def test_a_scope_around_may_be_cancelled_at_any_step(
    backend: str, way: Callable[[Pipeline], Awaitable[None]], retry: Any
) -> None:
    hand = Hand()

    async def main() -> None:
        hand.begin()
        work = Work(retry)
        async with no_task_left():
            hand.inside = True
            with hand.scope:
                await way(work.pipeline)
            hand.inside = False
            if backend == "asyncio" and not NOT_COUNTED:
                task: Any = asyncio.current_task()
                assert task.cancelling() == 0
        await work.has_ended()
        assert (await work.pipeline.run(range(2))).values == [0, 1]

    used = 0
    for exploration in at_each_step(backend, main, hand.cancel):
        exploration.run(main)
        used += hand.used
    assert used > 20 // EVERY


@row(8, "Cancelled from outside: only the cancellation comes out, counted right, nothing is left")
@pytest.mark.parametrize("retry", ["task", "stage"])
@pytest.mark.parametrize(("way", "scope_as_well"), [*natively_cancelled()])
def test_the_task_around_may_be_cancelled_natively_at_any_step(
    way: Callable[[Pipeline], Awaitable[None]], scope_as_well: bool, retry: Any
) -> None:
    hand = Hand()

    async def main() -> None:
        hand.begin()
        work = Work(retry)
        task: Any = asyncio.current_task()
        hand.task = task
        cancelled = False
        async with no_task_left():
            try:
                hand.inside = True
                with hand.scope:
                    await way(work.pipeline)
            except asyncio.CancelledError:
                cancelled = True
            hand.inside = False
            assert cancelled == hand.used
            if cancelled and not NOT_COUNTED:
                assert task.cancelling() == 1
                assert task.uncancel() == 0
        await work.has_ended()
        assert (await work.pipeline.run(range(2))).values == [0, 1]

    used = 0
    hook = hand.cancel_both_ways if scope_as_well else hand.cancel_natively
    for exploration in at_each_step("asyncio", main, hook):
        exploration.run(main)
        used += hand.used
    assert used > 20 // EVERY


@row(9, "1,000 busy workers are cancelled, each, and nothing is left")
async def test_a_thousand_busy_workers_are_cancelled() -> None:
    """What that costs is measured by benchmarks/cancel.py."""
    busy = anyio.Event()
    begun = cancelled = 0

    async def task(value: int) -> None:
        nonlocal begun, cancelled
        begun += 1
        if begun == 1000:
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

    async with no_task_left(), anyio.create_task_group() as group:
        group.start_soon(run)
        await busy.wait()
        scope.cancel()
    assert (begun, cancelled) == (1000, 1000)
    assert scope.cancelled_caught
    assert pipeline.get_stats().items_in_flight == 0


@row(10, "Cancelled during a back-off: no further attempt, not a second more")
@by_scope_or_natively
@pytest.mark.parametrize("retry", ["task", "stage"])
def test_a_back_off_may_be_cancelled_at_any_step(backend: str, retry: Any, natively: bool) -> None:
    hand = Hand()
    attempts: dict[int, list[float]] = {}
    # At the moment of the cancellation: the time, and the attempts of those who wait.
    now = 0.0
    waiting: dict[int, int] = {}

    async def fail(value: int) -> None:
        attempts.setdefault(value, []).append(anyio.current_time())
        raise ValueError(value)

    def note_and_cancel(exploration: Exploration) -> None:
        nonlocal now
        now = anyio.current_time() if backend == "asyncio" else trio_time()
        for value, times in attempts.items():
            if now < times[-1] + 60 * value:
                waiting[value] = len(times)
        (hand.cancel_natively if natively else hand.cancel)(exploration)

    def trio_time() -> float:
        import trio

        return trio.current_time()

    async def main() -> None:
        hand.begin()
        attempts.clear()
        waiting.clear()
        hand.task = asyncio.current_task() if natively else None
        policy = RetryPolicy(
            scope=retry, attempts=4, on=lambda error: 60 * error.args[0], wait_jitter=0
        )
        pipeline = Pipeline([Stage("A", 3, [fail], policy)])
        async with no_task_left():
            hand.inside = True
            try:
                with hand.scope:
                    await pipeline.run([1, 2, 3])
            except asyncio.CancelledError:
                assert natively
            hand.inside = False
        if hand.used:
            assert anyio.current_time() == now
            for value, count in waiting.items():
                assert len(attempts[value]) == count

    used = 0
    for exploration in at_each_step(backend, main, note_and_cancel):
        exploration.run(main)
        used += hand.used and bool(waiting)
    assert used > 10 // EVERY
