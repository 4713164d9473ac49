"""Tasks that feed, join and stop the run that they belong to, in all four ways of running."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.from_thread
import pytest
from anyio.lowlevel import checkpoint

import antflow
from antflow import Pipeline, PipelineError, Stage

pytestmark = pytest.mark.virtual_time

WAYS = ["run", "stream", "open", "block"]


async def run_in(way: str, pipeline: Pipeline, items: Any) -> list[Any]:
    """Return the values that *pipeline* makes of *items*, in order of their sequence numbers."""
    if way == "run":
        return (await pipeline.run(items)).values
    if way == "stream":
        async with pipeline.stream(items) as stream:
            results = [result async for result in stream]
        return [result.value for result in sorted(results, key=lambda one: one.sequence_id)]
    if way == "open":
        async with pipeline.open(items) as run:
            pass
        return run.results.values
    async with pipeline:
        await pipeline.feed(items)
    return pipeline.results.values


def crawler(feed: Callable[[Pipeline, list[int]], Awaitable[int]], workers: int = 2) -> Pipeline:
    """Return a pipeline whose task feeds two more items for each number below 20."""
    running = 0

    async def visit(number: int) -> int:
        nonlocal running
        running += 1
        assert running <= workers
        await anyio.sleep(1)
        if number < 20:
            await feed(pipeline, [2 * number + 1, 2 * number + 2])
        running -= 1
        return number

    pipeline = Pipeline([Stage("Visit", workers, [visit], queue_capacity=1, task_attempts=1)])
    return pipeline


@pytest.mark.parametrize("way", WAYS)
async def test_a_task_feeds_the_run_that_it_belongs_to(way: str) -> None:
    pipeline = crawler(Pipeline.feed)
    with anyio.fail_after(999):
        values = await run_in(way, pipeline, [0])
    assert sorted(values) == list(range(41))
    assert pipeline.failures == []
    assert pipeline.get_stats().items_in_flight == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_task_need_not_know_its_pipeline(way: str) -> None:
    async def feed(pipeline: Pipeline, items: list[int]) -> int:
        return await antflow.current_run().feed(items)

    with anyio.fail_after(999):
        assert sorted(await run_in(way, crawler(feed), [0])) == list(range(41))


async def test_an_ordered_stream_takes_what_tasks_feed() -> None:
    pipeline = crawler(Pipeline.feed)
    with anyio.fail_after(999):
        async with pipeline.stream([0], ordered=True, window=3) as stream:
            numbers = [result.sequence_id async for result in stream]
    assert numbers == list(range(41))


@pytest.mark.parametrize("way", WAYS)
async def test_a_callback_is_inside_too(way: str) -> None:
    async def on_success(item_id: Any, value: int, payload: Any) -> None:
        if value < 3:
            await pipeline.feed([value + 1])

    async def same(value: int) -> int:
        await checkpoint()
        return value

    pipeline = Pipeline([Stage("A", 1, [same], on_success=on_success, queue_capacity=0)])
    with anyio.fail_after(99):
        assert await run_in(way, pipeline, [0]) == [0, 1, 2, 3]


@pytest.mark.parametrize("way", WAYS)
async def test_a_loop_task_that_a_task_started_is_not_inside(way: str) -> None:
    """It waits for room, and may join and shut down."""
    waits: list[float] = []
    async with anyio.create_task_group() as group:

        async def produce() -> None:
            began = anyio.current_time()
            assert await pipeline.feed([1, 2, 3, 4]) == 4
            waits.append(anyio.current_time() - began)
            if way in ("open", "block"):
                await pipeline.join()

        async def visit(number: int) -> int:
            if number == 0:
                group.start_soon(produce)
            await anyio.sleep(1)
            return number

        pipeline = Pipeline([Stage("Visit", 1, [visit], queue_capacity=1)])
        with anyio.fail_after(99):
            assert await run_in(way, pipeline, [0]) == [0, 1, 2, 3, 4]
    assert waits == [3.0]


async def test_a_run_of_the_same_pipeline_inside_a_task_is_a_run_of_its_own() -> None:
    async def visit(number: int) -> int:
        if number < 3:
            return sum((await pipeline.run([number + 1])).values)
        return number

    pipeline = Pipeline([Stage("Visit", 1, [visit])])
    assert (await pipeline.run([0])).values == [3]


async def test_nested_pipelines_feed_their_own_runs() -> None:
    seen: list[str] = []

    async def inner_task(number: int) -> int:
        seen.append(f"inner {number}")
        if number == 10:
            await outer.feed([5])
            await inner.feed([11])
        return number

    async def outer_task(number: int) -> int:
        seen.append(f"outer {number}")
        if number == 0:
            assert sorted((await inner.run([10])).values) == [10, 11]
        return number

    inner = Pipeline([Stage("Inner", 1, [inner_task])])
    outer = Pipeline([Stage("Outer", 1, [outer_task], queue_capacity=0)])
    with anyio.fail_after(9):
        assert (await outer.run([0])).values == [0, 5]
    assert seen == ["outer 0", "inner 10", "inner 11", "outer 5"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_crawler_that_stops_itself_fails_nothing(way: str) -> None:
    fetched: list[int] = []

    async def fetch(number: int) -> int:
        fetched.append(number)
        await anyio.sleep(1)
        if len(fetched) >= 30:
            await pipeline.shutdown()
            assert await pipeline.feed([-1]) == 0
        else:
            await pipeline.feed([2 * number + 1, 2 * number + 2])
        return number

    pipeline = Pipeline([Stage("Fetch", 5, [fetch])])
    with anyio.fail_after(999):
        values = await run_in(way, pipeline, [0])
    assert sorted(values) == sorted(fetched)
    assert len(set(fetched)) == len(fetched)
    assert pipeline.failures == []


async def test_the_block_is_stopped_after_a_run_beside_it() -> None:
    started: list[int] = []

    async def task(value: int) -> int:
        started.append(value)
        await anyio.sleep(1)
        return value

    pipeline = Pipeline([Stage("A", 1, [task], queue_capacity=1)])
    with anyio.fail_after(99):
        async with pipeline:
            await pipeline.feed([1, 2])
            await pipeline.run([10])
            await pipeline.shutdown(drain=False)
            with pytest.raises(PipelineError, match="shut down"):
                await pipeline.feed([3])
    assert 3 not in started


async def test_the_current_item_is_that_of_the_task() -> None:
    seen: list[Any] = []

    async def task(value: int) -> int:
        item = antflow.current_item()
        seen.append((item.id, dict(item.metadata), item.stage, item.attempt, item.worker))
        item.metadata["mine"] = True
        if value == 1 and item.attempt < 3:
            raise ValueError
        return value

    def plain(value: int) -> int:
        assert antflow.current_item().id == f"item {value}"
        return value

    stages = [
        Stage("A", 1, [task], task_wait_seconds=0),
        Stage("B", 1, [task], "per_stage", task_wait_seconds=0),
        Stage("C", 1, [plain]),
    ]
    items = [antflow.Item(n, id=f"item {n}", metadata={"n": n}) for n in range(2)]
    await Pipeline(stages).run(items)
    assert sorted(seen) == [
        ("item 0", {"n": 0}, "A", 1, "A-W0"),
        ("item 0", {"n": 0}, "B", 1, "B-W0"),
        *(("item 1", {"n": 1}, stage, n, f"{stage}-W0") for stage in "AB" for n in (1, 2, 3)),
    ]


async def test_outside_of_a_task_there_is_neither() -> None:
    for function in (antflow.current_item, antflow.current_run):
        with pytest.raises(PipelineError, match="outside"):
            function()

    outcomes: list[str] = []

    async def background() -> None:
        await anyio.sleep(1)
        try:
            antflow.current_item()
        except PipelineError as error:
            outcomes.append(str(error))

    async with anyio.create_task_group() as group:

        async def task(value: int) -> int:
            group.start_soon(background)
            return value

        await Pipeline([Stage("A", 1, [task])]).run([1])
    assert len(outcomes) == 1


async def test_a_thread_of_a_task_of_its_own_is_outside() -> None:
    """It has copied the context, and runs in no loop."""
    errors: list[str] = []

    def look() -> None:
        with pytest.raises(PipelineError) as raised:
            antflow.current_item()
        errors.append(str(raised.value))

    async def task(value: int) -> int:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(look,))
        thread.start()
        thread.join()
        return value

    await Pipeline([Stage("A", 1, [task])]).run([1])
    assert len(errors) == 1


async def test_a_callback_of_the_loop_is_outside() -> None:
    """It has inherited the context, and is no loop task at all."""
    if "trio" in anyio.get_cancelled_exc_class().__module__:
        pytest.skip("only asyncio calls back with a context")
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    seen: list[Any] = []

    def look() -> None:
        try:
            seen.append(antflow.current_item())
        except PipelineError:
            seen.append(None)

    async def task(value: int) -> int:
        if value == 0:
            asyncio.get_running_loop().call_later(1.5, look)
            variable.set(1)
        await anyio.sleep(1)
        return value

    await Pipeline([Stage("A", 1, [task])]).run([0, 1, 2])
    assert seen == [None]


async def test_a_stream_made_outside_belongs_to_the_task_that_iterates() -> None:
    async def inner_task(value: int) -> int:
        if value == 10:
            await outer.feed([5])
        return value

    inner = Pipeline([Stage("Inner", 1, [inner_task])])
    stream = inner.stream([10])

    async def outer_task(value: int) -> Any:
        if value == 0:
            async with stream as results:
                return [result.value async for result in results]
        return value

    outer = Pipeline([Stage("Outer", 1, [outer_task])])
    assert (await outer.run([0])).values == [[10], 5]


async def test_a_loop_task_started_from_a_thread_may_join_after_the_function() -> None:
    returned = anyio.Event()
    joined: list[int] = []

    async def background() -> None:
        await returned.wait()
        await pipeline.join()
        joined.append(1)

    async with anyio.create_task_group() as group:

        def plain(value: int) -> int:
            anyio.from_thread.run_sync(group.start_soon, background)
            return value

        async def second(value: int) -> int:
            returned.set()
            await checkpoint()
            return value

        pipeline = Pipeline([Stage("A", 1, [plain]), Stage("B", 1, [second])])
        await pipeline.run([1])
    assert joined == [1]


def test_outside_of_any_loop_there_is_neither() -> None:
    for function in (antflow.current_item, antflow.current_run):
        with pytest.raises(PipelineError, match="outside"):
            function()


async def test_what_a_task_leaves_behind_does_not_keep_the_run() -> None:
    """A timer, a connection or a loop task copies the context in which it was made."""
    left = anyio.Event()

    async def background() -> None:
        await left.wait()

    async with anyio.create_task_group() as group:

        async def task(value: Any) -> Any:
            group.start_soon(background)
            return Value()

        class Value:
            pass

        pipeline = Pipeline([Stage("A", 1, [task])])
        results = await pipeline.run([1])
        kept = weakref.ref(results[0].value)
        run = weakref.ref(pipeline._run)  # type: ignore[arg-type]
        del results, pipeline, task
        gc.collect()
        assert kept() is None
        assert run() is None
        left.set()
