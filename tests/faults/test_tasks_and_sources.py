"""Rows 1-4 and 17: tasks that raise, sources that raise or are endless, slow consumers."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st

from antflow import Pipeline, RetryPolicy, Stage
from antflow.testing import Decision, Exploration, cancel, explore
from faults.kit import Source, at_each_step, both_backends, explored, no_leaked_tasks, row

SOURCE_RAISES = "The source raises: admitted items are finished, then its own exception is raised"
ALL_FAIL = "Every item of a stage fails at once with full queues: no deadlock, and bounds are kept"

workers = st.integers(1, 3)
capacities = st.integers(0, 2)


class OddError(Exception):
    """Raised by the tasks of this module."""


async def fail_odd(value: int) -> int:
    await checkpoint()
    if value % 2:
        raise OddError(value)
    return value


async def same(value: int) -> int:
    await checkpoint()
    return value


@row(1, "A task raises: other items are not affected")
@explored(workers=workers, capacity=capacities)
def test_a_failing_item_does_not_affect_others(
    backend: str, schedule: list[Decision], workers: int, capacity: int
) -> None:
    pipeline = Pipeline(
        [
            Stage("A", workers, [fail_odd], task_attempts=1, queue_capacity=capacity),
            Stage("B", 2, [same], queue_capacity=capacity),
        ]
    )

    async def main() -> None:
        async with no_leaked_tasks():
            results = await pipeline.run(range(8))
        assert results.values == [0, 2, 4, 6]
        assert sorted(failed.value for failed in results.failures) == [1, 3, 5, 7]
        assert {failed.error_type for failed in results.failures} == {"OddError"}

    explore(main, backend=backend, schedule=schedule)


@row(2, SOURCE_RAISES)
@explored(count=st.integers(0, 6), awaited=st.booleans(), streams=st.booleans())
def test_an_exception_of_the_source_is_raised_after_the_results(
    backend: str, schedule: list[Decision], count: int, awaited: bool, streams: bool
) -> None:
    source = Source(count, OSError("disk"))
    pipeline = Pipeline([Stage("A", 2, [same], queue_capacity=1), Stage("B", 2, [same])])
    taken: list[Any] = []

    async def stream_all(items: Any) -> None:
        async with pipeline.stream(items) as results:
            async for result in results:
                taken.append(result.value)

    async def main() -> None:
        items = source.awaited() if awaited else iter(source)
        process = stream_all if streams else pipeline.run
        async with no_leaked_tasks():
            with pytest.raises(OSError, match="disk") as raised:
                await process(items)
            assert raised.value is source.error
            assert raised.value.__traceback__ is not None
        if not streams:
            taken.extend(pipeline.results.values)

    explore(main, backend=backend, schedule=schedule)
    assert sorted(taken) == list(range(count))
    assert source.closed


@row(2, SOURCE_RAISES)
@both_backends
@pytest.mark.parametrize("awaited", [False, True])
def test_a_run_whose_source_raises_can_be_cancelled_at_any_step(
    backend: str, awaited: bool
) -> None:
    async def main() -> None:
        source = Source(5, OSError("disk"))
        pipeline = Pipeline([Stage("A", 2, [same], queue_capacity=1), Stage("B", 2, [same])])
        async with no_leaked_tasks():
            try:
                await pipeline.run(source.awaited() if awaited else iter(source))
            except OSError:
                assert pipeline.results.values == list(range(5))
            finally:
                assert source.closed or not source.read

    for exploration in at_each_step(backend, main, cancel):
        exploration.run(main)


@row(3, "An endless source is read only as far as the stages have space, plus one item")
@explored(
    2, workers=st.lists(workers, min_size=1, max_size=3), capacity=capacities, awaited=st.booleans()
)
def test_an_endless_source_is_read_only_as_far_as_there_is_space(
    backend: str, schedule: list[Decision], workers: list[int], capacity: int, awaited: bool
) -> None:
    source = Source()
    left = stopped_at = 0

    async def count(value: int) -> int:
        nonlocal stopped_at
        assert source.read - left <= space
        await checkpoint()
        if source.read > 15 and not stopped_at:
            await pipeline.shutdown()
            stopped_at = source.read
        return value

    async def last(value: int) -> int:
        nonlocal left
        await checkpoint()
        left += 1
        return value

    stages = [
        Stage(f"S{number}", some, [count], queue_capacity=capacity)
        for number, some in enumerate(workers)
    ]
    stages.append(Stage("last", 1, [last], queue_capacity=capacity))
    space = sum(stage.workers + stage.capacity for stage in stages) + 1
    pipeline = Pipeline(stages)

    async def main() -> None:
        results = await pipeline.run(source.awaited() if awaited else source)
        assert results.values == list(range(source.read))
        assert results.failures == []

    explore(main, backend=backend, schedule=schedule)
    assert stopped_at <= source.read <= stopped_at + 1
    assert source.closed


@row(4, "A slow consumer: the source is read only as far as stages and buffers have space")
@explored(
    2, buffer_size=st.integers(0, 2), window=st.none() | st.integers(1, 4), capacity=capacities
)
def test_a_slow_consumer_slows_reading_from_the_source(
    backend: str, schedule: list[Decision], buffer_size: int, window: int | None, capacity: int
) -> None:
    source = Source()
    pipeline = Pipeline(
        [Stage("A", 2, [same], queue_capacity=capacity), Stage("B", 1, [same], queue_capacity=1)]
    )
    space = sum(stage.workers + stage.capacity for stage in pipeline.stages) + buffer_size + 1

    async def main() -> None:
        taken = 0
        stream = pipeline.stream(
            source, ordered=window is not None, window=window, buffer_size=buffer_size
        )
        async with no_leaked_tasks(), stream as results:
            async for result in results:
                taken += 1
                assert source.read - taken <= space
                if window is not None:
                    assert result.value == taken - 1
                    assert source.read - taken <= window
                await anyio.sleep(10)
                if taken == 8:
                    break

    explore(main, backend=backend, schedule=schedule)
    assert source.closed


@row(17, ALL_FAIL)
@explored(workers=workers, capacity=capacities, attempts=st.integers(1, 3), wait=st.integers(0, 1))
def test_a_stage_whose_every_item_fails_neither_deadlocks_nor_exceeds_its_bounds(
    backend: str,
    schedule: list[Decision],
    workers: int,
    capacity: int,
    attempts: int,
    wait: int,
) -> None:
    source = Source(12)
    tried: dict[int, int] = {}

    async def fail(value: int) -> int:
        tried[value] = tried.get(value, 0) + 1
        assert source.read - len(pipeline.failures) <= space
        await checkpoint()
        raise OddError(value)

    policy = RetryPolicy(scope="stage", attempts=attempts, wait_initial=wait, wait_jitter=0)
    pipeline = Pipeline(
        [
            Stage("A", 2, [same], queue_capacity=capacity),
            Stage("B", workers, [fail], policy, queue_capacity=capacity),
        ]
    )
    space = sum(stage.workers + stage.capacity for stage in pipeline.stages) + 1

    async def main() -> None:
        async with no_leaked_tasks():
            results = await pipeline.run(source)
        assert results == []
        assert sorted(failed.value for failed in results.failures) == list(range(12))
        assert {failed.attempts for failed in results.failures} == {attempts}

    explore(main, backend=backend, schedule=schedule)
    assert set(tried.values()) == {attempts}


@row(17, ALL_FAIL)
@both_backends
def test_a_stage_whose_every_item_fails_can_be_cancelled_at_any_step(backend: str) -> None:
    async def fail(value: int) -> int:
        await checkpoint()
        raise OddError(value)

    async def main() -> None:
        policy = RetryPolicy(scope="stage", attempts=2, wait_initial=1, wait_jitter=0)
        pipeline = Pipeline([Stage("B", 2, [fail], policy, queue_capacity=1)])
        async with no_leaked_tasks():
            await pipeline.run(range(5))

    for exploration in at_each_step(backend, main, cancel):
        assert isinstance(exploration, Exploration)
        exploration.run(main)
        assert exploration.cancelled
