"""Streams: results one by one, bounded memory, and clean-up on every exit of the block."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import (
    Pipeline,
    PipelineError,
    ResultStream,
    Stage,
    StageValidationError,
    StatusTracker,
)


async def same(value: Any) -> Any:
    return value


async def fails_on_odd(value: int) -> int:
    await checkpoint()
    if value % 2:
        raise ValueError(value)
    return value * 10


class Sleepy:
    """A task that sleeps forever, and records which items began and which were cancelled."""

    def __init__(self) -> None:
        self.began: list[Any] = []
        self.cancelled: list[Any] = []

    async def __call__(self, value: Any) -> Any:
        self.began.append(value)
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.append(value)


class Source:
    """An async source that records how many items were read, and whether it was closed."""

    def __init__(self, end: float = math.inf) -> None:
        self.end = end
        self.read = 0
        self.closed = False

    async def generator(self) -> AsyncIterator[int]:
        try:
            while self.read < self.end:
                self.read += 1
                yield self.read - 1
        finally:
            self.closed = True


def two_stages(**options: Any) -> Pipeline:
    return Pipeline(
        [
            Stage("A", 2, [same], queue_capacity=1),
            Stage("B", 2, [same], queue_capacity=1, **options),
        ]
    )


async def test_each_input_yields_one_result_also_if_it_failed() -> None:
    pipeline = Pipeline(
        [Stage("A", 3, [same]), Stage("B", 3, [fails_on_odd], task_attempts=1)],
        collect_results=True,
    )
    async with pipeline.stream(range(100)) as results:
        found = [result async for result in results]
    assert sorted(result.sequence_id for result in found) == list(range(100))
    for result in found:
        if result.sequence_id % 2:
            assert isinstance(result.error, ValueError)
            assert not result.is_success
            assert result.value == result.sequence_id  # the input of the failing stage
        else:
            assert result.is_success
            assert result.value == result.sequence_id * 10
    # The results were handed over, and none is kept.
    assert pipeline.results == []
    assert pipeline.failures == []
    stats = pipeline.get_stats()
    assert (stats.items_processed, stats.items_failed, stats.items_in_flight) == (50, 50, 0)
    assert results.get_stats() == stats
    summary = pipeline.get_error_summary()
    assert summary.total_failed == 50
    assert summary.errors_by_type == {"ValueError": 50}
    assert summary.failed_items == []


@pytest.mark.virtual_time
@pytest.mark.parametrize("buffer_size", [0, 1, 64, math.inf])
@pytest.mark.parametrize("window", [1, 2, 7, None])
async def test_ordered_results_are_in_input_order(buffer_size: float, window: int | None) -> None:
    async def slow_at_first(value: int) -> int:
        await anyio.sleep((7 - value % 8) / 10)
        if value % 5 == 4:
            raise ValueError(value)
        return value

    pipeline = Pipeline(
        [
            Stage("A", 4, [slow_at_first], task_attempts=1, skip_if=lambda value: value % 11 == 3),
            Stage("B", 2, [same]),
        ]
    )
    stream = pipeline.stream(range(60), ordered=True, buffer_size=buffer_size, window=window)
    async with stream as results:
        found = [result async for result in results]
    assert [result.sequence_id for result in found] == list(range(60))
    assert [result.sequence_id for result in found if result.error] == [
        value for value in range(60) if value % 5 == 4 and value % 11 != 3
    ]


@pytest.mark.virtual_time
async def test_results_are_yielded_as_soon_as_they_are_available() -> None:
    async def task(value: int) -> int:
        await anyio.sleep(value)
        return value

    pipeline = Pipeline([Stage("A", 3, [task])])
    async with pipeline.stream([9, 1, 4]) as results:
        times = [(result.value, anyio.current_time()) async for result in results]
    began = times[0][1] - 1
    assert [(value, round(time - began)) for value, time in times] == [(1, 1), (4, 4), (9, 9)]


@pytest.mark.virtual_time
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("buffer_size", [0, 3])
async def test_the_source_is_read_only_as_far_as_there_is_space(
    ordered: bool, buffer_size: int
) -> None:
    source = Source()
    window = 5 if ordered else None
    stream = two_stages().stream(
        source.generator(), ordered=ordered, buffer_size=buffer_size, window=window
    )
    # Two workers and a queue of one per stage, the buffer of the stream, and one in the feeder.
    space = 5 if ordered else 2 * (2 + 1) + buffer_size + 1
    async with stream as results:
        for taken in range(20):
            await anyio.wait_all_tasks_blocked()
            assert source.read == space + taken
            result = await results.__anext__()
            if ordered:
                assert result.value == taken
    assert source.closed


@pytest.mark.virtual_time
async def test_without_a_buffer_results_are_handed_over_one_by_one() -> None:
    """The task does not start on the next item before the last result was taken."""
    begun: list[int] = []

    async def task(value: int) -> int:
        begun.append(value)
        return value

    pipeline = Pipeline([Stage("A", 1, [task], queue_capacity=0)])
    async with pipeline.stream(itertools.count(), buffer_size=0) as results:
        for number in range(10):
            await anyio.wait_all_tasks_blocked()
            assert begun == list(range(number + 1))
            assert (await results.__anext__()).value == number


@pytest.mark.virtual_time
async def test_head_of_line_blocking_is_limited_by_the_window() -> None:
    async def task(value: int) -> int:
        if value == 0:
            await anyio.sleep(3600)
        return value

    read = 0

    def source() -> Iterator[int]:
        nonlocal read
        for read in itertools.count(1):
            yield read - 1

    pipeline = Pipeline([Stage("A", 4, [task], queue_capacity=math.inf)])
    async with pipeline.stream(source(), ordered=True, window=10) as results:
        await anyio.sleep(1800)
        assert read == 10
        assert (await results.__anext__()).value == 0
        assert (await results.__anext__()).value == 1


@pytest.mark.virtual_time
async def test_the_worker_that_fills_the_gap_waits_until_its_results_fit_into_the_buffer() -> None:
    """Results 1 to 4 wait for result 0, so the worker that delivers it makes five available."""
    head = anyio.Event()
    begun: list[int] = []

    async def task(value: int) -> int:
        begun.append(value)
        if value == 0:
            await head.wait()
        return value

    pipeline = Pipeline([Stage("A", 2, [task])])
    async with pipeline.stream(itertools.count(), ordered=True, buffer_size=1, window=5) as results:
        await anyio.wait_all_tasks_blocked()
        assert begun == [0, 1, 2, 3, 4]
        head.set()
        await anyio.wait_all_tasks_blocked()
        for taken, last_begun in enumerate([5, 5, 5, 6, 7, 8], 1):
            assert (await results.__anext__()).value == taken - 1
            await anyio.wait_all_tasks_blocked()
            # The other worker takes item 5, and then blocks too. The one that delivered result 0
            # resumes when only result 4 of the five is left.
            assert (taken, begun[-1]) == (taken, last_begun)


# ---- leaving early


class StopError(Exception):
    pass


async def leave_by_break(results: ResultStream) -> None:
    async for _ in results:
        break


async def leave_by_error(results: ResultStream) -> None:
    async for _ in results:
        raise StopError


async def leave_by_inner_scope(results: ResultStream) -> None:
    with anyio.CancelScope() as scope:
        async for _ in results:
            scope.cancel()
            await checkpoint()
    assert scope.cancelled_caught


async def leave_at_once(results: ResultStream) -> None:
    await checkpoint()


LEAVE = [leave_by_break, leave_by_error, leave_by_inner_scope, leave_at_once]


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("close", ["enter", "aclosing"])
async def test_leaving_early_cancels_all_loop_tasks(leave: Any, ordered: bool, close: str) -> None:
    source = Source()
    sleepy = Sleepy()

    async def task(value: int) -> Any:
        return value if value < 5 else await sleepy(value)

    pipeline = Pipeline([Stage("A", 4, [task], queue_capacity=2)])
    tasks = asyncio_tasks()
    for _ in range(2):  # the pipeline can stream again immediately
        source.read, source.closed = 0, False
        stream: Any = pipeline.stream(source.generator(), ordered=ordered)
        with contextlib.suppress(StopError):
            async with contextlib.aclosing(stream) if close == "aclosing" else stream:
                await leave(stream)
        if leave is not leave_at_once or close == "enter":
            assert source.closed or not source.read
        assert sorted(sleepy.began) == sorted(sleepy.cancelled)
        read = source.read
        await anyio.wait_all_tasks_blocked()
        assert source.read == read
        with pytest.raises(StopAsyncIteration):
            await stream.__anext__()
        stats = pipeline.get_stats()
        assert stats.items_in_flight == 0
    assert asyncio_tasks() == tasks


def asyncio_tasks() -> set[Any]:
    try:
        return asyncio.all_tasks()
    except RuntimeError:  # on trio no task outlives its nursery
        return set()


async def test_the_error_of_the_body_is_raised_unwrapped() -> None:
    with pytest.raises(StopError):  # noqa: PT012
        async with two_stages().stream(itertools.count()) as results:
            async for _ in results:
                raise StopError
    with pytest.raises(KeyboardInterrupt):
        async with two_stages().stream(itertools.count()):
            raise KeyboardInterrupt


async def test_cancelling_from_outside_ends_the_stream() -> None:
    sleepy = Sleepy()
    source = Source()
    with anyio.CancelScope() as scope:
        async with Pipeline([Stage("A", 2, [sleepy])]).stream(source.generator()) as results:
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            async for _ in results:
                raise AssertionError
    assert scope.cancelled_caught
    assert sorted(sleepy.cancelled) == [0, 1]
    assert source.closed


@pytest.mark.virtual_time
@pytest.mark.parametrize("entered", [True, False])
async def test_a_timeout_around_a_wait_loses_no_result(entered: bool) -> None:
    async def task(value: int) -> int:
        await anyio.sleep(value % 4)
        return value

    pipeline = Pipeline([Stage("A", 2, [task])])
    found = []
    async with contextlib.AsyncExitStack() as stack:
        stream = pipeline.stream(range(40), buffer_size=0)
        if entered:
            await stack.enter_async_context(stream)
        while True:
            with anyio.move_on_after(0.7):
                try:
                    found.append((await stream.__anext__()).value)
                except StopAsyncIteration:
                    break
    assert sorted(found) == list(range(40))


@pytest.mark.virtual_time
async def test_a_native_cancellation_of_a_wait_loses_no_result(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio has Task.cancel()")
    pipeline = Pipeline([Stage("A", 2, [same])])
    found = []
    async with pipeline.stream(range(200), buffer_size=0) as results:
        for number in itertools.count():
            waiting = asyncio.ensure_future(results.__anext__())  # type: ignore[arg-type]
            for _ in range(number % 7):
                await asyncio.sleep(0)
            waiting.cancel()
            try:
                found.append((await waiting).value)
            except asyncio.CancelledError:
                continue
            except StopAsyncIteration:
                break
            if number > 5000:
                raise AssertionError("no progress")
    assert sorted(found) == list(range(200))


async def test_several_loop_tasks_may_share_a_stream() -> None:
    found: list[int] = []

    async def consume(results: ResultStream) -> None:
        async for result in results:
            found.append(result.value)
            await checkpoint()

    async with two_stages().stream(range(50), buffer_size=0) as results:  # noqa: SIM117
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(consume, results)
    assert sorted(found) == list(range(50))


# ---- plain iteration


async def test_plain_iteration_runs_to_the_end() -> None:
    pipeline = two_stages()
    found = [result.value async for result in pipeline.stream(range(30), ordered=True)]
    assert found == list(range(30))
    assert pipeline.get_stats().items_processed == 30


async def test_two_plain_streams_interleave_in_one_loop_task() -> None:
    pipeline = two_stages()
    first = pipeline.stream(range(20), ordered=True)
    second = pipeline.stream(range(100, 120), ordered=True)
    for number in range(20):
        assert (await first.__anext__()).value == number
        assert (await second.__anext__()).value == number + 100
    for stream in (second, first):  # not in the order in which they were started
        with pytest.raises(StopAsyncIteration):
            await stream.__anext__()


async def test_two_entered_streams_interleave_in_one_loop_task() -> None:
    pipeline = two_stages()
    async with pipeline.stream(range(20), ordered=True) as first:  # noqa: SIM117
        async with pipeline.stream(range(20), ordered=True) as second:
            async for result in first:
                assert (await second.__anext__()).value == result.value


async def test_a_cancel_scope_inside_a_plain_loop_does_not_affect_the_stream() -> None:
    scopes = []
    with anyio.CancelScope() as outer:
        async for result in two_stages().stream(range(6), ordered=True):
            with anyio.CancelScope() as scope:
                if result.value % 2:
                    scope.cancel()
                await checkpoint()
            scopes.append(scope.cancelled_caught)
    assert not outer.cancel_called
    assert scopes == [False, True] * 3


@pytest.mark.parametrize("leave", LEAVE[:3])
async def test_a_plain_loop_that_is_left_early_warns_and_cleans_up(leave: Any) -> None:
    """Everything that the stream started ends as soon as the stream is freed."""
    sleepy = Sleepy()
    source = Source()

    async def task(value: int) -> Any:
        return value if value == 0 else await sleepy(value)

    pipeline = Pipeline([Stage("A", 2, [task])])

    async def iterate() -> None:
        await leave(pipeline.stream(source.generator()))

    with pytest.warns(ResourceWarning, match="Write `async with pipeline.stream"):  # noqa: PT031
        with contextlib.suppress(StopError):
            await iterate()
        # The event loop releases the cancellation that it threw, and the frames in its traceback.
        await checkpoint()
        gc.collect()
    await anyio.wait_all_tasks_blocked()
    assert source.closed
    assert sorted(sleepy.cancelled) == sorted(sleepy.began)
    # The caller's own scopes and task groups still work.
    async with anyio.create_task_group() as group:
        group.start_soon(checkpoint)
    assert len((await pipeline.run([0])).values) == 1


async def test_a_stream_that_was_never_started_warns_of_nothing() -> None:
    stream = two_stages().stream([1])
    reference = weakref.ref(stream)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await stream.__anext__()
    del stream
    assert reference() is None
    two_stages().stream([1])


def test_a_stream_may_outlive_its_loop(anyio_backend: Any) -> None:
    """The event loop ends the run, and freeing the stream later has no effect."""
    streams = []

    async def main() -> None:
        streams.append(two_stages().stream(itertools.count()))
        await streams[0].__anext__()

    name, options = anyio_backend
    anyio.run(main, backend=name, backend_options=options)
    assert streams[0]._run.ended.is_set()
    streams.clear()


async def test_a_plain_stream_uses_the_context_of_its_caller() -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def task(value: int) -> str:
        return variable.get()

    variable.set("caller")
    pipeline = Pipeline([Stage("A", 1, [task])])
    assert [result.value async for result in pipeline.stream([1])] == ["caller"]


# ---- errors


class DiskError(Exception):
    pass


@pytest.mark.parametrize("entered", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
async def test_p8_a_source_error_is_raised_after_the_results(entered: bool, ordered: bool) -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(10):
            yield number
        raise DiskError

    found = []
    async with contextlib.AsyncExitStack() as stack:
        stream = two_stages().stream(source(), ordered=ordered)
        if entered:
            await stack.enter_async_context(stream)
        with pytest.raises(DiskError) as raised:  # noqa: PT012
            async for result in stream:
                found.append(result.value)
        with pytest.raises(StopAsyncIteration):
            await stream.__anext__()
    assert sorted(found) == list(range(10))
    error = weakref.ref(raised.value)
    del raised, stream
    gc.collect()
    assert error() is None


class Fatal(BaseException):
    pass


@pytest.mark.parametrize("entered", [True, False])
async def test_a_fatal_error_is_raised_unwrapped(entered: bool) -> None:
    async def task(value: int) -> int:
        if value == 3:
            raise Fatal
        return value

    async def iterate() -> None:
        stream = Pipeline([Stage("A", 1, [task])]).stream(range(10))
        async with contextlib.AsyncExitStack() as stack:
            if entered:
                await stack.enter_async_context(stream)
            async for _ in stream:
                await checkpoint()

    with pytest.raises(Fatal):
        await iterate()


async def test_a_stream_is_entered_once() -> None:
    pipeline = two_stages()
    stream = pipeline.stream([1])
    async with stream:
        with pytest.raises(PipelineError, match="entered once"):
            await stream.__aenter__()
    with pytest.raises(PipelineError, match=r"Call pipeline\.stream"):
        await stream.__aenter__()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buffer_size": -1}, "buffer_size must be a whole number of at least 0, or math.inf"),
        ({"buffer_size": "8"}, "Write buffer_size=8, without the quotes"),
        ({"ordered": 1}, "ordered must be True or False, got 1"),
        ({"ordered": True, "window": 0}, "window must be a whole number of at least 1, got 0"),
        ({"window": 5}, "Add ordered=True"),
    ],
)
def test_arguments_are_checked_when_the_stream_is_made(options: dict[str, Any], words: str) -> None:
    with pytest.raises(StageValidationError, match=words):
        two_stages().stream([1], **options)
    with pytest.raises(PipelineError, match=r"Pipeline\.stream\(\): items must be an iterable"):
        two_stages().stream(5)  # type: ignore[arg-type]


# ---- callbacks, fairness and clean-up


async def test_callbacks_return_and_the_tracker_is_updated_before_the_result() -> None:
    calls: list[tuple[str, Any]] = []
    tracker = StatusTracker(
        on_success=lambda item_id, value, payload: calls.append(("success", item_id)),
        on_failure=lambda item_id, error, payload: calls.append(("failure", item_id)),
    )
    pipeline = Pipeline([Stage("A", 1, [fails_on_odd], task_attempts=1)], status_tracker=tracker)
    async with pipeline.stream(range(6)) as results:
        async for result in results:
            kind = "success" if result.is_success else "failure"
            assert (kind, result.id) in calls
            event = tracker.get_status(result.id)
            assert event is not None
            assert event.status == ("completed" if result.is_success else "failed")


async def test_a_stream_with_ready_results_lets_other_loop_tasks_run() -> None:
    """Iteration yields to the event loop although every result is already available."""
    steps = 0

    async def other() -> None:
        nonlocal steps
        while True:
            steps += 1
            await checkpoint()

    pipeline = Pipeline([Stage("A", 1, [same], queue_capacity=math.inf)])
    async with pipeline.stream(range(3000), buffer_size=math.inf) as results:
        while pipeline.get_stats().items_processed < 3000:
            await checkpoint()
        async with anyio.create_task_group() as group:
            group.start_soon(other)
            async for _ in results:
                pass
            group.cancel_scope.cancel()
    assert steps >= 10


async def test_a_source_that_raises_stop_async_iteration_is_an_error() -> None:
    class Source:
        def __iter__(self) -> Source:
            return self

        def __next__(self) -> int:
            raise StopAsyncIteration

    async with two_stages().stream(Source()) as results:
        with pytest.raises(RuntimeError, match="the source raised StopAsyncIteration"):
            await results.__anext__()


async def test_a_native_cancellation_stays_counted(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio" or not hasattr(asyncio.Task, "cancelling"):
        pytest.skip("only asyncio counts cancellations, from Python 3.11 on")
    counts = []

    async def iterate() -> None:
        try:
            async with Pipeline([Stage("A", 1, [Sleepy()])]).stream([1]) as results:
                async for _ in results:
                    raise AssertionError
        finally:
            task = asyncio.current_task()
            assert task is not None
            counts.append(task.cancelling())

    task = asyncio.ensure_future(iterate())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert counts == [1]


@pytest.mark.filterwarnings("error")
async def test_an_abandoned_stream_ends_although_warnings_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sleepy = Sleepy()

    async def iterate() -> None:
        async def task(value: int) -> Any:
            return value if value == 0 else await sleepy(value)

        async for _ in Pipeline([Stage("A", 2, [task])]).stream(range(3)):
            break

    # An exception in a finalizer cannot be caught.
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: None)
    await iterate()
    gc.collect()
    await anyio.wait_all_tasks_blocked()
    assert sorted(sleepy.cancelled) == sorted(sleepy.began)
