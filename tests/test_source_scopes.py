"""Scopes, task groups and limits that a source holds open across its yields."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import Pipeline, PipelineError, PipelineResult, Stage, StatusEvent
from antflow._model.record import Record
from antflow._run.outbox import Outbox

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.virtual_time


async def slow(value: int) -> int:
    await anyio.sleep(1)
    return value


def narrow() -> Pipeline:
    """Return a pipeline that takes one item a second, and holds three."""
    return Pipeline([Stage("A", 1, [slow], queue_capacity=1)])


async def fail_after(seconds: float) -> AsyncIterator[int]:
    with anyio.fail_after(seconds):
        for number in range(100):
            yield number


async def move_on_after(seconds: float) -> AsyncIterator[int]:
    with anyio.move_on_after(seconds):
        for number in range(100):
            yield number
    yield -1


def plain_move_on_after(seconds: float) -> Iterator[int]:
    with anyio.move_on_after(seconds):  # noqa: ASYNC100 - the feeder waits at the yield
        yield from range(100)
    yield -1


def ending_at_once(seconds: float) -> Iterator[int]:
    with anyio.move_on_after(seconds):  # noqa: ASYNC100 - the feeder waits at the yield
        yield from range(100)


async def ending_at_once_async(seconds: float) -> AsyncIterator[int]:
    with anyio.move_on_after(seconds):
        for number in range(100):
            yield number


async def native_timeout(seconds: float) -> AsyncIterator[int]:
    async with asyncio.timeout(seconds):  # type: ignore[attr-defined, unused-ignore]
        for number in range(100):
            yield number


async def with_group(seconds: float) -> AsyncIterator[int]:
    """A child of its own fails meanwhile."""

    async def fail() -> None:
        await anyio.sleep(seconds)
        raise OSError("disk")

    async with anyio.create_task_group() as group:
        group.start_soon(fail)
        for number in range(100):
            yield number


LIMITED: list[Any] = [fail_after]
if sys.version_info >= (3, 11):
    LIMITED.append(native_timeout)


def skip_on_trio(source: Any) -> None:
    if source is native_timeout and "trio" in anyio.get_cancelled_exc_class().__module__:
        pytest.skip("asyncio.timeout works on asyncio only")


@pytest.mark.parametrize("source", LIMITED)
async def test_a_limit_that_expires_while_the_queue_is_full_is_the_error_of_the_source(
    source: Any,
) -> None:
    skip_on_trio(source)
    pipeline = narrow()
    with anyio.fail_after(99), pytest.raises(TimeoutError):
        await pipeline.run(source(4.5))
    # One a second, one in the queue, and the one for which there was no room.
    assert pipeline.results.values == list(range(7))
    assert pipeline.get_stats().items_in_flight == 0


async def collect(results: Any, given: list[int]) -> None:
    async for result in results:
        given.append(result.value)


@pytest.mark.parametrize("source", LIMITED)
async def test_it_is_raised_after_the_results_of_a_stream(source: Any) -> None:
    skip_on_trio(source)
    given: list[int] = []
    with anyio.fail_after(99):
        async with narrow().stream(source(4.5), buffer_size=0) as results:
            with pytest.raises(TimeoutError):
                await collect(results, given)
    assert given == list(range(7))


@pytest.mark.parametrize("source", [move_on_after, plain_move_on_after])
@pytest.mark.parametrize("ordered", [None, False, True])
async def test_a_source_goes_on_after_a_limit_that_it_handles(source: Any, ordered: Any) -> None:
    pipeline = narrow()
    with anyio.fail_after(99):
        if ordered is None:
            values = (await pipeline.run(source(4.5))).values
        else:
            async with pipeline.stream(source(4.5), ordered=ordered, buffer_size=0) as results:
                values = [result.value async for result in results]
    # In order, the window of two items is smaller than what the stage and the feeder can hold.
    assert values == [*range(6 if ordered else 7), -1]


async def test_a_window_is_no_reason_to_lose_an_item() -> None:
    """The feeder waits for the window of the stream, and not for a queue."""
    given: list[PipelineResult] = []
    with anyio.fail_after(99):
        pipeline = Pipeline([Stage("A", 5, [slow])])
        async with pipeline.stream(move_on_after(4.5), ordered=True, window=1) as results:
            async for result in results:
                given.append(result)
    assert [result.value for result in given] == [0, 1, 2, 3, 4, -1]


async def test_the_error_of_a_child_of_the_source_is_its_error() -> None:
    pipeline = narrow()
    with anyio.fail_after(99), pytest.raises(BaseExceptionGroup) as raised:
        await pipeline.run(with_group(4.5))
    (error,) = raised.value.exceptions
    assert str(error) == "disk"
    assert pipeline.results.values == list(range(7))


@pytest.mark.parametrize("source", [fail_after, move_on_after, plain_move_on_after, with_group])
@pytest.mark.parametrize("end", ["drain", "max_failures", "break", "cancel", "feed"])
async def test_early_ends_close_the_source_in_order(source: Any, end: str) -> None:
    """The scopes are left in the loop task in which they were entered, or anyio would raise."""
    pipeline = narrow()

    async def fails(value: int) -> int:
        await anyio.sleep(1)
        raise ValueError

    with anyio.fail_after(99):
        if end == "break":
            async with pipeline.stream(source(90), buffer_size=0) as results:
                async for _ in results:
                    break
        elif end == "max_failures":
            pipeline = Pipeline([Stage("A", 1, [fails], task_attempts=1, queue_capacity=1)])
            with pytest.raises(Exception, match="2 items failed"):
                await pipeline.run(source(90), max_failures=1)
        elif end == "cancel":
            with anyio.move_on_after(2.5):
                await pipeline.run(source(90))
        elif end == "feed":
            async with pipeline:
                with anyio.move_on_after(2.5):
                    await pipeline.feed(source(90))
            assert pipeline.results.values == list(range(len(pipeline.results)))
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(pipeline.run, source(90))
                await anyio.sleep(2.5)
                await pipeline.shutdown()
            assert pipeline.results.values == [0, 1, 2, 3, 4][: len(pipeline.results)]
    stats = pipeline.get_stats()
    assert stats.items_in_flight == 0


async def test_async_handlers_are_not_cancelled_by_a_limit_of_the_source() -> None:
    """They run between two items, and belong to the run."""
    ended: list[Any] = []

    async def handle(event: Any) -> None:
        if event.status == "queued":
            await anyio.sleep(1)
            ended.append(event.item_id)

    pipeline = Pipeline([Stage("A", 1, [slow])])
    pipeline.events.subscribe(StatusEvent, handle)
    with anyio.fail_after(99):
        results = await pipeline.run(move_on_after(2.5))
    assert [result.id for result in results] == ended
    assert results.values[-1] == -1


async def test_a_generator_that_yields_in_reply_to_the_limit_loses_nothing() -> None:
    async def source() -> AsyncIterator[str]:
        try:
            with anyio.fail_after(1.5):
                while True:
                    yield "tick"
        except TimeoutError:
            yield "late"
            await checkpoint()
            yield "later"

    with anyio.fail_after(99):
        values = (await narrow().run(source())).values
    assert values[-2:] == ["late", "later"]
    assert set(values[:-2]) == {"tick"}


@pytest.mark.parametrize("source", [ending_at_once, ending_at_once_async])
async def test_a_source_may_end_with_its_limit(source: Any) -> None:
    with anyio.fail_after(99):
        assert (await narrow().run(source(4.5))).values == list(range(7))


class Iterating:
    """An iterator that is not a generator, and leaves a scope open."""

    def __init__(self) -> None:
        self.number = -1
        self.scope: anyio.CancelScope | None = None

    def __aiter__(self) -> Iterating:
        return self

    async def __anext__(self) -> int:
        if self.scope is None:
            self.scope = anyio.move_on_after(4.5)
            self.scope.__enter__()
        self.number += 1
        return self.number


async def test_an_iterator_that_cannot_be_told_is_an_error_and_no_hang() -> None:
    """Nobody can leave its scope for it, so anyio adds an error of its own."""
    with anyio.fail_after(99), pytest.raises((PipelineError, RuntimeError)):
        await narrow().run(Iterating())


async def shielded() -> AsyncIterator[int]:
    with anyio.CancelScope(shield=True):
        for number in range(100):
            yield number


@pytest.mark.parametrize("end", ["cancel", "break", "window"])
async def test_a_source_that_shields_itself_does_not_keep_a_cancelled_run_alive(end: str) -> None:
    pipeline = Pipeline([Stage("A", 1, [slow], queue_capacity=0)])
    with anyio.fail_after(99):
        if end == "break":
            async with pipeline.stream(shielded(), buffer_size=0) as results:
                async for _ in results:
                    break
        elif end == "window":
            with anyio.move_on_after(2.5):
                async with pipeline.stream(shielded(), ordered=True, window=1) as results:
                    await anyio.sleep_forever()
        else:
            with anyio.move_on_after(2.5):
                await pipeline.run(shielded())
    assert pipeline.get_stats().items_in_flight == 0


async def test_an_error_of_a_source_that_is_closed_early_loses_no_item() -> None:
    async def source() -> AsyncIterator[int]:
        async def child() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise OSError("closing")

        async with anyio.create_task_group() as group:
            group.start_soon(child)
            for number in range(100):
                yield number

    pipeline = narrow()

    async def stop() -> None:
        await anyio.sleep(2.5)
        await pipeline.shutdown()

    with anyio.fail_after(99):
        async with anyio.create_task_group() as group:
            group.start_soon(stop)
            with pytest.raises(ExceptionGroup) as raised:
                await pipeline.run(source())
    assert [str(error) for error in raised.value.exceptions] == ["closing"]
    assert pipeline.results.values == list(range(len(pipeline.results)))
    assert len(pipeline.results) >= 4


async def test_handlers_are_not_left_unawaited_when_a_run_is_cancelled_before_it_sends() -> None:
    """The loop task that was to wait for them may be cancelled before its first step."""
    called: list[str] = []

    async def handler() -> None:
        called.append("handler")
        raise OSError

    outbox = Outbox(None)  # type: ignore[arg-type]
    outbox.unsent.append((Record(0, "value"), False, handler()))
    outbox.unsent.append((Record(1, "value"), True, None))
    await outbox.drop()
    assert called == ["handler"]
    assert not outbox.unsent
