"""A run that ends early says so: nothing looks like success."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import Pipeline, PipelineError, Stage, TooManyFailuresError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.virtual_time


async def slow(value: Any) -> Any:
    await anyio.sleep(1)
    return value


def cancel_the_run_natively() -> None:
    """Cancel the loop task that executes a run, as a debugger or another library may."""
    (task,) = (task for task in asyncio.all_tasks() if "Run.execute" in str(task.get_name()))
    task.cancel()


def only_on_asyncio() -> None:
    if "trio" in anyio.get_cancelled_exc_class().__module__:
        pytest.skip("only asyncio cancels tasks")


async def test_a_stream_whose_run_was_cancelled_natively_is_not_over() -> None:
    only_on_asyncio()
    given: list[Any] = []
    async with Pipeline([Stage("A", 2, [slow])]).stream(range(100)) as results:
        with pytest.raises(PipelineError, match="96 of 100 items were not finished"):  # noqa: PT012
            async for result in results:
                given.append(result.value)
                if len(given) == 4:
                    cancel_the_run_natively()
    assert len(given) == 4


@pytest.mark.parametrize("way", ["block", "open"])
async def test_leaving_a_block_whose_run_was_cancelled_natively_raises(way: str) -> None:
    only_on_asyncio()
    pipeline = Pipeline([Stage("A", 2, [slow])])
    with pytest.raises(PipelineError, match="items were not finished"):  # noqa: PT012
        async with pipeline if way == "block" else pipeline.open() as live:
            await live.feed(range(9))
            cancel_the_run_natively()


@pytest.mark.parametrize("way", ["block", "open"])
async def test_join_raises_too(way: str) -> None:
    only_on_asyncio()
    pipeline = Pipeline([Stage("A", 2, [slow])])
    errors: list[str] = []
    with pytest.raises(PipelineError):  # noqa: PT012
        async with pipeline if way == "block" else pipeline.open() as live:
            await live.feed(range(9))
            cancel_the_run_natively()
            with pytest.raises(PipelineError, match="items were not finished") as raised:
                await live.join()
            errors.append(str(raised.value))
    assert len(errors) == 1


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("way", ["run", "stream", "open", "block"])
async def test_no_error_of_a_source_that_a_task_feeds_is_dropped(way: str, count: int) -> None:
    def source(number: int) -> Any:
        # More than there is room for, so that the task does not wait for the error.
        yield from [10] * 9
        raise OSError(f"source {number}")

    async def task(value: int) -> int:
        if value < count:
            await pipeline.feed(source(value))
        await checkpoint()
        return value

    pipeline = Pipeline([Stage("A", 1, [task], queue_capacity=2)])
    expected: Any = OSError if count == 1 else ExceptionGroup
    with anyio.fail_after(99), pytest.raises(expected) as raised:  # noqa: PT012
        if way == "run":
            await pipeline.run(range(count))
        elif way == "stream":
            async with pipeline.stream(range(count)) as results:
                async for _ in results:
                    pass
        elif way == "open":
            async with pipeline.open(range(count)):
                pass
        else:
            async with pipeline:
                await pipeline.feed(range(count))
    errors = [raised.value] if count == 1 else raised.value.exceptions
    assert sorted(map(str, errors)) == [f"source {number}" for number in range(count)]


async def test_a_later_start_does_not_drop_the_error_of_a_source() -> None:
    def source() -> Any:
        yield from [10] * 9
        raise OSError("disk")

    async def task(value: int) -> int:
        if value == 0:
            await pipeline.feed(source())
        await checkpoint()
        return value

    pipeline = Pipeline([Stage("A", 1, [task], queue_capacity=2)])
    with pytest.raises(OSError, match="disk"):  # noqa: PT012
        async with pipeline:
            await pipeline.feed([0])
            await pipeline.join()
            for _ in range(3):
                await pipeline.start()
                await pipeline.feed([1])
                await pipeline.join()


@pytest.mark.parametrize("use", ["stream", "open"])
def test_what_is_made_outside_a_loop_is_used_inside(use: str) -> None:
    pipeline = Pipeline([Stage("A", 2, [slow])])

    async def consume(made: Any) -> list[Any]:
        if use == "open":
            async with made as run:
                pass
            return [result.value for result in run.results]
        async with made as results:
            return sorted([result.value async for result in results])

    def make() -> Any:
        return pipeline.open(range(3)) if use == "open" else pipeline.stream(range(3))

    with_virtual_time(consume, make())
    made = make()
    with_virtual_time(consume, made, backend="trio")


def with_virtual_time(consume: Any, made: Any, backend: str = "asyncio") -> None:
    from antflow.testing import backends

    for parameter in backends():
        name, options = parameter.values[0] if hasattr(parameter, "values") else parameter
        if name == backend:
            assert anyio.run(consume, made, backend=name, backend_options=options) == [0, 1, 2]
            return
    raise AssertionError


async def test_a_stream_is_closed_when_its_reader_ends_early() -> None:
    """Whatever has `aclose()` is closed, so the workers of an inner pipeline do not run on."""
    inner = Pipeline([Stage("Inner", 2, [slow])])
    outer = Pipeline([Stage("Outer", 1, [slow])])
    stream = inner.stream(iter(range(10**9)))
    async with outer.stream(stream) as results:
        async for _ in results:
            break
    assert stream._run.ended.is_set()


async def test_too_many_failures_are_told_after_a_cancellation_too() -> None:
    """A task may shield itself from the cancellation, and fail after it."""

    async def task(value: int) -> int:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)
        raise ValueError(value)

    pipeline = Pipeline([Stage("A", 2, [task], task_attempts=1)])

    async def stop() -> None:
        await anyio.sleep(1)
        await pipeline.shutdown(drain=False)

    async with anyio.create_task_group() as group:
        group.start_soon(stop)
        with pytest.raises(TooManyFailuresError):
            await pipeline.run([1, 2], max_failures=0)


async def test_a_drained_run_that_is_cancelled_later_is_not_an_unexpected_end() -> None:
    pipeline = Pipeline([Stage("A", 1, [slow])])
    async with pipeline.open(range(9)) as run:
        await anyio.sleep(1.5)
        with anyio.move_on_after(0.1):
            await run.shutdown()
        await run.shutdown(drain=False)
    assert run.results.values == [0]


async def test_a_stream_that_is_left_while_its_run_is_idle_leaves_no_cycle() -> None:
    async def fail(value: int) -> int:
        raise ValueError

    pipeline = Pipeline([Stage("A", 2, [fail], task_attempts=1)])
    stream = pipeline.stream(range(3))
    run = weakref.ref(stream._run)
    gc.disable()
    try:
        async with stream as results:
            async for _ in results:
                await anyio.wait_all_tasks_blocked()
                break
        pipeline._set_latest(pipeline._new_run())
        del stream, results, _
        assert run() is None
    finally:
        gc.enable()


async def test_an_error_of_the_body_and_one_of_the_run_come_out_in_one_group() -> None:
    class FatalError(BaseException):
        pass

    async def task(value: int) -> int:
        try:
            await anyio.sleep_forever()
        finally:
            raise FatalError

    with pytest.raises(BaseExceptionGroup) as raised:  # noqa: PT012
        async with Pipeline([Stage("A", 1, [task])]).open([1]):
            await anyio.wait_all_tasks_blocked()
            raise OSError("body")
    assert [type(error) for error in raised.value.exceptions] == [OSError, FatalError]


@pytest.mark.parametrize("way", ["run", "stream", "open", "block"])
async def test_a_source_that_is_cut_off_is_not_at_its_end(way: str) -> None:
    """All items are finished when an idle worker is cancelled natively; more would have come."""
    only_on_asyncio()

    async def source() -> Any:
        for value in range(3):
            yield value
        await anyio.sleep(60)
        yield 3

    async def cancel_an_idle_worker() -> None:
        await anyio.sleep(30)
        next(task for task in asyncio.all_tasks() if task.get_name() == "A-W0").cancel()

    pipeline = Pipeline([Stage("A", 1, [slow])])
    async with anyio.create_task_group() as group:
        group.start_soon(cancel_an_idle_worker)
        with pytest.raises(PipelineError, match="a source was not read to its end"):  # noqa: PT012
            if way == "run":
                await pipeline.run(source())
            elif way == "stream":
                async with pipeline.stream(source()) as results:
                    async for _ in results:
                        pass
            elif way == "open":
                async with pipeline.open(source()) as run:
                    await run.join()
            else:
                async with pipeline:
                    await pipeline.feed(source())
