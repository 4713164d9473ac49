"""Live runs: `start()`, `feed()`, `join()` and `shutdown()`, and the exit of the block."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import (
    Item,
    Pipeline,
    PipelineError,
    PipelineRun,
    RetryPolicy,
    Stage,
    StatusEvent,
)
from antflow.testing import explore

STAGE_NO_WAIT = RetryPolicy(scope="stage", wait_initial=0, wait_max=0, wait_jitter=0)


async def same(value: Any) -> Any:
    return value


async def double(value: int) -> int:
    await checkpoint()
    return value * 2


class StopError(Exception):
    pass


class Gate:
    """A task that blocks each item until its event is set."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.inside: list[Any] = []

    async def __call__(self, value: Any) -> Any:
        self.inside.append(value)
        await self.event.wait()
        return value


# ---- start, feed, join


async def test_the_example_of_the_guide() -> None:
    pipeline = Pipeline([Stage("Double", 2, [double]), Stage("Save", 2, [same])])

    async def source() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    async with pipeline:
        await pipeline.start()
        assert await pipeline.feed([1, 2, 3]) == 3
        assert await pipeline.feed(["recovered"], target_stage="Save", priority=10) == 1
        assert await pipeline.feed_async(source()) == 5
        await pipeline.join()
        assert pipeline.results.values == [2, 4, 6, "recovered", 0, 2, 4, 6, 8]
        assert pipeline.failures == []
        stats = pipeline.get_stats()
        assert stats.stage_stats["Double"].completed_items == 8
        assert stats.stage_stats["Save"].completed_items == 9
        assert (stats.items_processed, stats.items_in_flight) == (9, 0)
    assert len(pipeline.results) == 9


async def test_exiting_the_block_finishes_what_was_fed() -> None:
    pipeline = Pipeline([Stage("A", 1, [double]), Stage("B", 1, [double])])
    async with pipeline:
        await pipeline.feed(range(20))
    assert pipeline.results.values == [4 * number for number in range(20)]
    # The pipeline can be entered again.
    async with pipeline:
        await pipeline.feed([7])
    assert pipeline.results.values == [28]
    async with pipeline:
        pass


@pytest.mark.virtual_time
async def test_feed_waits_for_space_in_the_queue() -> None:
    gate = Gate()
    pipeline = Pipeline([Stage("A", 2, [gate], queue_capacity=3)])
    read = 0

    def source() -> Iterator[int]:
        nonlocal read
        for number in range(1, 11):
            read = number
            yield number

    async with pipeline, anyio.create_task_group() as group:
        group.start_soon(pipeline.feed, source())
        await anyio.wait_all_tasks_blocked()
        assert gate.inside == [1, 2]
        assert read == 2 + 3 + 1
        gate.event.set()
    assert pipeline.results.values == list(range(1, 11))


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
async def test_several_loop_tasks_may_feed_at_once(retry: Any) -> None:
    async def fail_sometimes(value: int) -> int:
        await checkpoint()
        if value % 10 == 7:
            raise ValueError(value)
        return value

    stage = Stage("A", 3, [fail_sometimes], retry, task_wait_seconds=0, queue_capacity=2)
    pipeline = Pipeline([stage, Stage("B", 2, [same], queue_capacity=0)])
    async with pipeline:
        async with anyio.create_task_group() as group:
            for start in range(0, 100, 20):
                group.start_soon(pipeline.feed, range(start, start + 20))
        await pipeline.join()
        assert sorted(pipeline.results.values) == [n for n in range(100) if n % 10 != 7]
        assert sorted(failed.value for failed in pipeline.failures) == list(range(7, 100, 10))
        # The items of each source stay in order.
        for start in range(0, 100, 20):
            mine = [value for value in pipeline.results.values if start <= value < start + 20]
            assert mine == sorted(mine)


async def test_after_join_feed_continues_the_run_and_start_makes_a_new_one() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    async with pipeline:
        await pipeline.feed([1])
        await pipeline.join()
        await pipeline.feed([2])
        await pipeline.join()
        assert pipeline.results.values == [1, 2]
        await pipeline.start()
        assert pipeline.results == []
        assert pipeline.get_stats().items_processed == 0
        await pipeline.feed([3])
        await pipeline.join()
        await pipeline.join()
        assert pipeline.results.values == [3]


async def test_starting_twice_is_rejected() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    async with pipeline:
        await pipeline.start()
        with pytest.raises(PipelineError, match=r"started already\. Feed it, or call join\(\)"):
            await pipeline.start()
        await pipeline.join()
        await pipeline.feed([1])
        with pytest.raises(PipelineError, match="started already"):
            await pipeline.start()


async def test_start_outside_of_a_block_is_rejected_with_a_hint() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    with pytest.raises(PipelineError, match=r"Write:\n    async with pipeline:"):
        await pipeline.start()


async def test_a_pipeline_is_entered_once_at_a_time() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    async with pipeline:
        with pytest.raises(PipelineError, match=r"pipeline\.open\(\)"):
            await pipeline.__aenter__()
        await pipeline.feed([1])
    assert pipeline.results.values == [1]


async def test_join_and_shutdown_are_no_ops_when_nothing_runs() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    for _ in range(2):
        await pipeline.join()
        await pipeline.shutdown()
        await pipeline.shutdown(drain=False)
    async with pipeline:
        await pipeline.join()
        await pipeline.shutdown()
        await pipeline.start()
        await pipeline.join()
        await pipeline.shutdown()
        await pipeline.shutdown(drain=False)
        await pipeline.join()
    await pipeline.run([1])
    await pipeline.join()
    await pipeline.shutdown()
    assert pipeline.results.values == [1]


async def test_feed_outside_of_a_block_runs_to_the_end() -> None:
    pipeline = Pipeline([Stage("A", 1, [double]), Stage("B", 1, [double])])
    assert await pipeline.feed([1, 2]) == 2
    assert pipeline.results.values == [4, 8]
    assert await pipeline.feed([1, 2, 3], target_stage="B", priority=1) == 3
    assert pipeline.results.values == [2, 4, 6]


async def test_an_unknown_target_is_rejected_with_the_stage_names() -> None:
    pipeline = Pipeline([Stage("Fetch", 1, [same]), Stage("Save", 1, [same])])
    async with pipeline:
        for target in ("save", 1, pipeline.stages[1]):
            with pytest.raises(ValueError, match="target_stage must be one of 'Fetch', 'Save', go"):
                await pipeline.feed([1], target_stage=target)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="priority must be a number"):
            await pipeline.feed([1], priority="high")  # type: ignore[arg-type]
        with pytest.raises(PipelineError, match=r"Pipeline\.feed\(\): items must be"):
            await pipeline.feed(3)  # type: ignore[arg-type]
    assert pipeline.results == []


async def test_feed_raises_the_error_of_its_source() -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise StopError

    pipeline = Pipeline([Stage("A", 1, [double])])
    async with pipeline:
        with pytest.raises(StopError):
            await pipeline.feed(source())
        await pipeline.feed([5])
    assert pipeline.results.values == [0, 2, 4, 6, 8, 10]


async def test_tasks_may_feed_their_own_pipeline() -> None:
    """A crawler: the block exits when no page has another link."""
    links = {number: [2 * number + 1, 2 * number + 2] for number in range(50)}

    async def visit(number: int) -> int:
        await pipeline.feed(links.get(number, []))
        return number

    pipeline = Pipeline([Stage("Visit", 3, [visit], queue_capacity=math.inf)])
    async with pipeline:
        await pipeline.feed([0])
    assert sorted(pipeline.results.values) == list(range(101))
    async with pipeline:
        await pipeline.feed([0])
        await pipeline.join()
        assert len(pipeline.results) == 101


async def feed_and_join(steps: int) -> tuple[list[Any], bool]:
    """Join an idle run *steps* checkpoints after starting a loop task that feeds it."""
    pipeline = Pipeline([Stage("S0", tasks=[same])])
    rejected = False
    async with pipeline:
        await pipeline.start()
        await pipeline.join()
        async with anyio.create_task_group() as group:
            group.start_soon(pipeline.feed, [1])
            for _ in range(steps):
                await checkpoint()
            await pipeline.join()
            values = pipeline.results.values
            try:
                await pipeline.start()
            except PipelineError:
                rejected = True
    return values, rejected


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_join_waits_for_a_feed_that_was_called_before(backend: str) -> None:
    assert explore(feed_and_join, 2, backend=backend) == ([1], False)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_run_that_is_fed_while_it_is_joined_stays_started(backend: str) -> None:
    """Otherwise `start()` would replace a run that is being fed, and `join()` would miss it."""
    assert explore(feed_and_join, 1, backend=backend) == ([], True)


async def test_joining_from_a_task_of_the_run_is_rejected() -> None:
    async def task(value: int) -> None:
        await pipeline.join()

    pipeline = Pipeline([Stage("A", 1, [task], task_attempts=1)])
    async with pipeline:
        await pipeline.feed([1])
        await pipeline.join()
        assert "would wait for itself" in pipeline.failures[0].error


async def test_join_waits_for_callbacks() -> None:
    called = []

    async def slow(*args: Any) -> None:
        for _ in range(5):
            await checkpoint()
        called.append(args[0])

    pipeline = Pipeline([Stage("A", 1, [same], on_success=slow)])
    async with pipeline:
        await pipeline.feed([1, 2])
        await pipeline.join()
        assert called == [0, 1]


# ---- cancelled feeds


@pytest.mark.virtual_time
@pytest.mark.parametrize("capacity", [0, 2])
@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
async def test_a_cancelled_feed_loses_no_item(capacity: int, retry: Any) -> None:
    """Items that were read are processed, the generator is closed, and `join()` returns."""
    gate = Gate()
    pipeline = Pipeline([Stage("A", 1, [gate], retry, queue_capacity=capacity)])
    read: list[int] = []
    closed = False

    def source() -> Iterator[int]:
        nonlocal closed
        try:
            for number in itertools.count():
                read.append(number)
                yield number
        finally:
            closed = True

    async with pipeline:
        with anyio.move_on_after(1):
            await pipeline.feed(source())
        assert read == list(range(1 + capacity + 1))
        gate.event.set()
        await pipeline.join()
        assert pipeline.results.values == read
        assert closed


@pytest.mark.virtual_time
async def test_a_feed_can_be_cancelled_while_its_source_waits() -> None:
    cleaned_up = False

    async def source() -> AsyncIterator[int]:
        nonlocal cleaned_up
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            cleaned_up = True

    pipeline = Pipeline([Stage("A", 1, [same])])
    async with pipeline:
        with anyio.move_on_after(1):
            await pipeline.feed_async(source())
        assert cleaned_up
        await pipeline.join()
        assert pipeline.results.values == [1]


# ---- exit with an error


async def test_the_error_of_the_body_is_raised_unwrapped() -> None:
    gate = Gate()
    pipeline = Pipeline([Stage("A", 2, [gate])])
    with pytest.raises(StopError):  # noqa: PT012
        async with pipeline:
            await pipeline.feed([1, 2, 3])
            await checkpoint()
            raise StopError
    assert pipeline.results == []
    assert pipeline.get_stats().items_in_flight == 0
    gate.event.set()
    assert (await pipeline.run([1])).values == [1]


async def test_cancelling_the_block_ends_it() -> None:
    gate = Gate()
    pipeline = Pipeline([Stage("A", 2, [gate])])
    with anyio.CancelScope() as scope:
        async with pipeline:
            await pipeline.feed([1, 2, 3])
            scope.cancel()
            await pipeline.join()
            raise AssertionError
    assert scope.cancelled_caught
    with anyio.CancelScope() as scope:
        async with pipeline:
            await pipeline.feed([1, 2, 3])
            scope.cancel()
    assert scope.cancelled_caught


class FatalError(BaseException):
    pass


async def test_a_fatal_error_of_a_task_is_raised_unwrapped() -> None:
    async def task(value: int) -> None:
        raise FatalError

    pipeline = Pipeline([Stage("A", 2, [task])])
    with pytest.raises(FatalError):  # noqa: PT012
        async with pipeline:
            await pipeline.feed([1])
            await anyio.sleep_forever()


# ---- shutting down


@pytest.mark.virtual_time
async def test_shutdown_in_another_loop_task_drains_a_run() -> None:
    read = 0
    closed = False

    async def source() -> AsyncIterator[int]:
        nonlocal read, closed
        try:
            for number in itertools.count():
                read += 1
                yield number
                await anyio.sleep(1)
        finally:
            closed = True

    async def task(value: int) -> int:
        await anyio.sleep(5)
        return value

    pipeline = Pipeline([Stage("A", 9, [task])])
    async with anyio.create_task_group() as group:

        async def stop() -> None:
            await anyio.sleep(10.5)
            await pipeline.shutdown()
            assert pipeline.get_stats().items_in_flight == 0

        group.start_soon(stop)
        results = await pipeline.run(source())
    assert results.values == list(range(11))
    assert read == 11
    assert closed


@pytest.mark.virtual_time
@pytest.mark.parametrize("capacity", [0, 3])
async def test_shutdown_while_the_feeder_waits_for_space(capacity: int) -> None:
    """The item that was read and waits for space in the queue is finished too."""

    async def task(value: int) -> int:
        await anyio.sleep(5)
        return value

    read = 0

    def source() -> Iterator[int]:
        nonlocal read
        for number in itertools.count(1):
            read = number
            yield number

    pipeline = Pipeline([Stage("A", 2, [task], queue_capacity=capacity)])
    async with anyio.create_task_group() as group:

        async def stop() -> None:
            await anyio.sleep(1)
            await pipeline.shutdown()

        group.start_soon(stop)
        results = await pipeline.run(source())
    assert results.values == list(range(1, read + 1))
    assert read == 2 + capacity + 1


@pytest.mark.parametrize("ordered", [None, False, True])
async def test_a_source_that_calls_shutdown_yields_one_more_item(ordered: bool | None) -> None:
    """That item is finished too, and no further item is read."""

    async def source() -> AsyncIterator[int]:
        for number in range(9):
            if number == 5:
                await pipeline.shutdown()
            yield number

    pipeline = Pipeline([Stage("A", 2, [double])])
    if ordered is None:
        assert (await pipeline.run(source())).values == [0, 2, 4, 6, 8, 10]
    else:
        async with pipeline.stream(source(), ordered=ordered) as results:
            assert sorted([result.value async for result in results]) == [0, 2, 4, 6, 8, 10]


@pytest.mark.virtual_time
async def test_shutdown_without_draining_cancels_a_run() -> None:
    gate = Gate()
    pipeline = Pipeline([Stage("A", 2, [same]), Stage("B", 1, [gate])])
    async with anyio.create_task_group() as group:

        async def stop() -> None:
            await anyio.sleep(1)
            await pipeline.shutdown(drain=False)

        group.start_soon(stop)
        with pytest.raises(PipelineError, match=r"before everything was finished: 3 of 3 items"):
            await pipeline.run([1, 2, 3])


@pytest.mark.virtual_time
async def test_shutdown_in_a_block() -> None:
    gate = Gate()
    pipeline = Pipeline([Stage("A", 1, [gate], queue_capacity=1)])
    async with pipeline, anyio.create_task_group() as group:
        fed: list[int] = []

        async def feed() -> None:
            fed.append(await pipeline.feed(itertools.count()))

        group.start_soon(feed)
        await anyio.wait_all_tasks_blocked()
        gate.event.set()
        await pipeline.shutdown()
        read = len(pipeline.results)
        await anyio.wait_all_tasks_blocked()
        assert fed == [read]
        assert pipeline.results.values == list(range(read))
        with pytest.raises(PipelineError, match=r"was shut down.* Call start\(\) for a new one"):
            await pipeline.feed([1])
        await pipeline.start()
        await pipeline.feed([5])
        await pipeline.join()
        assert pipeline.results.values == [5]


@pytest.mark.virtual_time
async def test_shutdown_without_draining_in_a_block_does_not_cancel_the_body() -> None:
    gate = Gate()
    pipeline = Pipeline([Stage("A", 1, [gate])])
    async with pipeline:
        await pipeline.feed([1, 2, 3])
        await anyio.wait_all_tasks_blocked()
        await pipeline.shutdown(drain=False)
        await checkpoint()
        await pipeline.join()
        assert pipeline.results == []
        assert pipeline.get_stats().items_in_flight == 0


async def test_a_task_may_shut_down_its_own_run() -> None:
    async def task(value: int) -> int:
        if value == 3:
            await pipeline.shutdown()
        await checkpoint()
        return value

    pipeline = Pipeline([Stage("A", 1, [task], queue_capacity=0)])
    results = await pipeline.run(itertools.count())
    assert results.values == list(range(len(results)))
    assert 4 <= len(results) <= 6


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_consumer_may_drain_its_stream(ordered: bool) -> None:
    pipeline = Pipeline([Stage("A", 2, [same], queue_capacity=2)])
    found = []
    async with pipeline.stream(itertools.count(), ordered=ordered, buffer_size=1) as results:
        async for result in results:
            found.append(result.value)
            if len(found) == 5:
                await pipeline.shutdown()
                with pytest.raises(PipelineError, match="iterate to the end"):
                    await pipeline.join()
    assert sorted(found) == list(range(len(found)))
    assert len(found) >= 5


async def test_a_stream_raises_after_shutdown_without_draining() -> None:
    gate = Gate()
    pipeline = Pipeline([Stage("A", 2, [gate])])
    async with pipeline.stream(range(5)) as results:
        while not gate.inside:
            await checkpoint()
        await pipeline.shutdown(drain=False)
        with pytest.raises(PipelineError, match=r"ended by shutdown\(drain=False\)"):
            await results.__anext__()
        with pytest.raises(StopAsyncIteration):
            await results.__anext__()


@pytest.mark.virtual_time
async def test_an_async_source_may_yield_one_more_item_when_it_is_stopped() -> None:
    """An item that a source has yielded is never dropped, even if the queue is full."""
    gate = Gate()
    taken: list[int] = []

    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> int:
            taken.append(len(taken))
            if len(taken) == 2:
                group.start_soon(pipeline.shutdown)
                group.start_soon(open_the_gate)
                with anyio.CancelScope(shield=True):
                    for _ in range(5):
                        await checkpoint()
            return taken[-1]

    async def open_the_gate() -> None:
        await anyio.wait_all_tasks_blocked()
        gate.event.set()

    pipeline = Pipeline([Stage("A", 1, [gate], queue_capacity=0)])
    async with anyio.create_task_group() as group:
        results = await pipeline.run(Source())
    assert results.values == taken == [0, 1]


# ---- several runs at once


async def test_open_makes_a_separate_run() -> None:
    pipeline = Pipeline([Stage("A", 2, [double]), Stage("B", 2, [same])])
    async with pipeline.open() as first, pipeline.open(range(3)) as second:
        assert isinstance(first, PipelineRun)
        await first.feed([10])
        await first.feed([50], target_stage="B", priority=5)
        await second.feed_async(_numbers(100, 103))
        await first.join()
        assert first.results.values == [20, 50]
        await second.join()
        assert sorted(second.results.values) == [0, 2, 4, 200, 202, 204]
        assert pipeline.results == second.results  # the newest run
        await first.shutdown()
        with pytest.raises(PipelineError, match="was shut down"):
            await first.feed([1])
    assert first.get_stats().items_processed == 2


async def _numbers(start: int, stop: int) -> AsyncIterator[int]:
    for number in range(start, stop):
        yield number


async def test_open_finishes_its_source_and_raises_its_error() -> None:
    def source() -> Iterator[int]:
        yield from range(30)
        raise StopError

    pipeline = Pipeline([Stage("A", 1, [double])])
    with pytest.raises(StopError):
        async with pipeline.open(source()) as run:
            pass
    assert run.results.values == list(range(0, 60, 2))
    with pytest.raises(PipelineError, match=r"pipeline\.open\(\) for another"):
        await run.__aenter__()


async def test_a_run_that_was_not_entered_raises_a_hint() -> None:
    run = Pipeline([Stage("A", 1, [same])]).open()
    for call in (lambda: run.feed([1]), run.join, run.shutdown):
        with pytest.raises(PipelineError, match=r"async with pipeline\.open\(\) as run:"):
            await call()
    with pytest.raises(PipelineError, match=r"Pipeline\.open\(\): items must be"):
        Pipeline([Stage("A", 1, [same])]).open(3)  # type: ignore[arg-type]


# ---- priority


@pytest.mark.virtual_time
@pytest.mark.parametrize("capacity", [0, 2, 64, math.inf])
@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
async def test_items_start_by_priority_and_equal_ones_in_fifo_order(
    capacity: float, retry: Any
) -> None:
    begun: list[int] = []

    async def task(value: int) -> int:
        begun.append(value)
        await anyio.sleep(1)
        return value

    pipeline = Pipeline([Stage("A", 1, [task], retry, queue_capacity=capacity)])
    async with pipeline, anyio.create_task_group() as group:
        await pipeline.feed([0])
        await anyio.wait_all_tasks_blocked()
        for value, priority in [(1, 100), (2, 100), (3, 50), (4, 200), (5, 50), (6, 0)]:
            group.start_soon(pipeline.feed, [value], None, priority)
            await anyio.wait_all_tasks_blocked()
        assert begun == [0]
    assert begun == [0, 6, 3, 5, 1, 2, 4]
    assert pipeline.results.values == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.virtual_time
async def test_priority_holds_at_later_stages() -> None:
    begun: list[int] = []
    gate = Gate()

    async def task(value: int) -> int:
        begun.append(value)
        return value

    pipeline = Pipeline([Stage("A", 1, [same]), Stage("B", 1, [gate]), Stage("C", 1, [task])])
    async with pipeline:
        await pipeline.feed(range(10))
        await anyio.wait_all_tasks_blocked()
        assert gate.inside == [0]
        await pipeline.feed(range(10, 13), priority=1)
        await anyio.wait_all_tasks_blocked()
        gate.event.set()
    # Item 0 was in progress already.
    assert [value for value in begun if value] == [10, 11, 12, *range(1, 10)]


@pytest.mark.virtual_time
@pytest.mark.parametrize("capacity", [0, 1, 5])
async def test_p1_holds_with_priorities_and_retries(capacity: int) -> None:
    tried: dict[int, int] = {}

    async def task(value: int) -> int:
        tried[value] = tried.get(value, 0) + 1
        await anyio.sleep(value % 3)
        if tried[value] < value % 4:
            raise ValueError(value)
        return value

    pipeline = Pipeline(
        [
            Stage("A", 2, [same], queue_capacity=capacity),
            Stage("B", 2, [task], STAGE_NO_WAIT, queue_capacity=capacity),
            Stage("C", 1, [task], queue_capacity=capacity, task_wait_seconds=1),
        ]
    )
    async with pipeline, anyio.create_task_group() as group:
        group.start_soon(pipeline.feed, range(30))
        await anyio.sleep(2)
        group.start_soon(pipeline.feed, range(30, 60), None, 7)
        await anyio.sleep(1)
        group.start_soon(pipeline.feed, range(60, 70), "B", 100)
        group.start_soon(pipeline.feed, range(70, 80), "C", 1.5)
    outcomes = pipeline.results.values + [failed.stage_value for failed in pipeline.failures]
    assert sorted(outcomes) == list(range(80))
    assert pipeline.get_stats().items_in_flight == 0


@pytest.mark.parametrize("subscribed", [False, True])
async def test_an_item_in_progress_keeps_its_identity_when_priorities_are_first_used(
    subscribed: bool,
) -> None:
    """An item that was taken before the heap existed ends with its own outcome."""
    gate = anyio.Event()

    async def fail_on_0(value: int) -> int:
        if value == 0:
            await gate.wait()
            raise ValueError(value)
        if value == 1:
            await gate.wait()
        return value

    stage = Stage("A", 2, [fail_on_0], task_attempts=1)
    async with Pipeline([stage]) as pipeline:
        await pipeline.feed([0, 1, 2])
        await anyio.wait_all_tasks_blocked()
        await pipeline.feed([3, 4], priority=1)
        if subscribed:
            pipeline.events.subscribe(StatusEvent, lambda event: None)
        gate.set()
    assert pipeline.results.values == [1, 2, 3, 4]
    assert [failed.value for failed in pipeline.failures] == [0]


async def test_there_is_no_heap_until_a_priority_is_used() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    async with pipeline:
        await pipeline.feed([1], priority=100)
        assert pipeline._run is not None
        assert all(pool.queue.heap is None for pool in pipeline._run._pools)
        await pipeline.feed([1], priority=99)
        assert all(pool.queue.heap is not None for pool in pipeline._run._pools)


async def test_failed_items_can_be_fed_again_into_the_stage_that_failed() -> None:
    """A failure keeps the id, and the value that the stage received."""
    broken = True

    async def save(value: int) -> int:
        if broken and value % 3 == 0:
            raise OSError("down")
        return value

    pipeline = Pipeline([Stage("Double", 2, [double]), Stage("Save", 2, [save], task_attempts=1)])
    async with pipeline:
        await pipeline.feed(range(9))
        await pipeline.join()
        failed = pipeline.failures
        assert len(failed) == 3
        broken = False
        again = [Item(item.stage_value, id=item.item_id) for item in failed]
        await pipeline.feed(again, target_stage="Save", priority=10)
        await pipeline.join()
        assert sorted(pipeline.results.values) == [2 * number for number in range(9)]
        assert {result.id for result in pipeline.results} == set(range(9))


@pytest.mark.virtual_time
async def test_with_queue_capacity_0_feed_waits_until_a_worker_takes_the_item() -> None:
    """The queue holds no item, so the sender waits until a worker takes its item."""
    gate = Gate()
    pipeline = Pipeline([Stage("A", 2, [gate], queue_capacity=0)])
    async with pipeline, anyio.create_task_group() as group:
        fed: list[int] = []

        async def feed(value: int) -> None:
            await pipeline.feed([value])
            fed.append(value)

        for value in range(4):
            group.start_soon(feed, value)
        await anyio.wait_all_tasks_blocked()
        assert len(gate.inside) == 2
        assert sorted(fed) == sorted(gate.inside)
        assert pipeline.get_stats().queue_sizes == {"A": 0}
        gate.event.set()


# ---- entry and exit of a block


async def test_after_shutdown_a_block_may_exit_or_start_again() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    async with pipeline:
        await pipeline.feed([1])
        await pipeline.shutdown()
    async with pipeline:
        await pipeline.feed([1])
        await pipeline.shutdown()
        await pipeline.start()
        await pipeline.feed([2])
    assert pipeline.results.values == [2]
    async with pipeline.open() as run:
        await run.shutdown()
        with pytest.raises(PipelineError, match=r"Call pipeline\.open\(\) for another"):
            await run.feed([1])


async def test_join_waits_for_a_feed_that_has_just_been_called() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    async with pipeline, anyio.create_task_group() as group:
        group.start_soon(pipeline.feed, [1, 2, 3])
        while pipeline._block is not None and pipeline._block.host.run is None:
            await checkpoint()
        await pipeline.join()
        assert pipeline.results.values == [1, 2, 3]


@pytest.mark.virtual_time
async def test_start_and_feed_are_rejected_while_a_block_exits() -> None:
    pipeline = Pipeline([Stage("A", 1, [anyio.sleep])])
    rejected = []

    async def late() -> None:
        await anyio.sleep(1)
        with pytest.raises(PipelineError, match="is being left"):
            await pipeline.start()
        with pytest.raises(PipelineError, match="is being left"):
            await pipeline.feed([1])
        rejected.append(True)

    async with anyio.create_task_group() as group:
        group.start_soon(late)
        async with pipeline, anyio.create_task_group() as inner:
            inner.start_soon(anyio.sleep, 0.5)
            # Nothing was fed, so only the task group of the block is open.
            assert pipeline._block is not None
            pipeline._block.host.group.start_soon(anyio.sleep, 2)
    assert rejected


@pytest.mark.virtual_time
async def test_shutdown_before_the_source_is_read() -> None:
    def source() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    for drain in (True, False):
        read: list[int] = []
        pipeline = Pipeline([Stage("A", 1, [same])])
        async with pipeline.open(source()) as run:
            await run.shutdown(drain=drain)
        assert read == []
        assert run.results == []
    async with pipeline.stream(source()) as results:
        await pipeline.shutdown()
        assert [result async for result in results] == []


@pytest.mark.virtual_time
@pytest.mark.parametrize("capacity", [0, 2])
async def test_a_task_that_feeds_its_own_full_stage_does_not_wait(capacity: int) -> None:
    async def task(value: int) -> int:
        if value == 0:
            await pipeline.feed(range(1, 20))
        return value

    pipeline = Pipeline([Stage("A", 1, [task], queue_capacity=capacity)])
    async with pipeline:
        await pipeline.feed([0])
        await pipeline.join()
        assert sorted(pipeline.results.values) == list(range(20))


@pytest.mark.virtual_time
async def test_the_block_raises_a_source_error_that_no_feed_waits_for() -> None:
    def source() -> Iterator[int]:
        yield from range(1, 9)
        raise StopError

    async def task(value: int) -> int:
        if value == 0:
            await pipeline.feed(source())
        return value

    pipeline = Pipeline([Stage("A", 1, [task], queue_capacity=0)])
    with pytest.raises(StopError):
        async with pipeline:
            await pipeline.feed([0])
    assert sorted(pipeline.results.values) == list(range(9))


async def test_a_nested_run_may_shut_down_the_outer_run() -> None:
    async def inner(value: int) -> int:
        await outer_pipeline.shutdown()
        return value

    async def outer(value: int) -> Any:
        return (await Pipeline([Stage("B", 1, [inner])]).run([value])).values

    outer_pipeline = Pipeline([Stage("A", 1, [outer], queue_capacity=0)])
    results = await outer_pipeline.run(itertools.count())
    assert results.values[0] == [0]
    assert len(results) <= 3


@pytest.mark.virtual_time
@pytest.mark.parametrize("ordered", [False, True])
async def test_the_cleanup_of_a_drained_source_may_await(ordered: bool) -> None:
    flushed = []

    class Source:
        async def __aiter__(self) -> AsyncIterator[int]:
            try:
                for number in itertools.count():
                    yield number
            finally:
                await anyio.sleep(1)
                flushed.append(True)

    async def slow(value: int) -> int:
        await anyio.sleep(1)
        return value

    pipeline = Pipeline([Stage("A", 1, [slow], queue_capacity=1)])
    async with pipeline.stream(Source(), ordered=ordered, buffer_size=0) as results:
        async for _ in results:
            await pipeline.shutdown()
    assert flushed


async def test_streams_can_be_drained_separately() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    first, second = (pipeline.stream(itertools.count(), ordered=True) for _ in range(2))
    async with first, second:
        assert (await second.__anext__()).value == 0
        assert (await first.__anext__()).value == 0
        await first.shutdown()
        rest = [result.value async for result in first]
        assert rest == list(range(1, len(rest) + 1))
        assert (await second.__anext__()).value == 1
    unused = pipeline.stream(itertools.count())
    await unused.shutdown()
    assert [result async for result in unused] == []


@pytest.mark.virtual_time
async def test_shutdown_in_a_block_stops_the_run_of_the_block() -> None:
    """As `feed()` and `join()` act on it: a `run()` beside it goes on."""

    async def slow(value: int) -> int:
        await anyio.sleep(1)
        return value

    pipeline = Pipeline([Stage("A", 1, [slow], queue_capacity=1)])
    async with pipeline, anyio.create_task_group() as group:
        await pipeline.feed([1, 2])

        async def stop() -> None:
            await anyio.sleep(2.5)
            await pipeline.shutdown()

        group.start_soon(stop)
        assert (await pipeline.run(range(5))).values == [0, 1, 2, 3, 4]
        with pytest.raises(PipelineError, match="was shut down"):
            await pipeline.feed([3])
    assert pipeline._block is None


async def test_the_error_of_the_body_of_an_open_run_is_raised_unwrapped() -> None:
    gate = Gate()
    pipeline = Pipeline([Stage("A", 2, [gate])])
    with pytest.raises(StopError):  # noqa: PT012
        async with pipeline.open(itertools.count()) as run:
            while not gate.inside:
                await checkpoint()
            raise StopError
    assert run.results == []
    assert run.get_stats().items_in_flight == 0
