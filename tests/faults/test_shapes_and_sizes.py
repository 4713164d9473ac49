"""Rows 23 to 25 and 29: few items, many stages and workers, simultaneous runs, memory."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st

from antflow import Item, Pipeline, RetryPolicy, Stage, StatusEvent, StatusTracker
from antflow.testing import Decision, EventLog, assert_promises, cancel, explore
from faults.kit import at_each_step, both_backends, explored, no_leaked_tasks, row

FEW = "No items, one item, more workers than items, queues without capacity"
MANY = "500 stages; 10,000 busy workers take at most 10 KiB each"
SIMULTANEOUS = "Runs of one pipeline: repeated, overlapping, nested, in two loops and two threads"
MEMORY = "100,000 items, 2 stages of 20 workers: at most 64 MiB"


async def same(value: Any) -> Any:
    await checkpoint()
    return value


async def awaited(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await checkpoint()
        yield number


@row(23, FEW)
@explored(
    2,
    count=st.integers(0, 3),
    workers=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    capacity=st.integers(0, 1),
    scope=st.sampled_from(["task", "stage"]),
    how=st.sampled_from(["run", "stream", "ordered", "feed", "open"]),
    awaits=st.booleans(),
)
def test_few_items_and_queues_without_capacity_are_no_special_case(
    backend: str,
    schedule: list[Decision],
    count: int,
    workers: list[int],
    capacity: int,
    scope: Any,
    how: str,
    awaits: bool,
) -> None:
    policy = RetryPolicy(scope=scope)
    pipeline = Pipeline(
        [
            Stage(f"S{number}", some, [same], policy, queue_capacity=capacity)
            for number, some in enumerate(workers)
        ]
    )
    log = EventLog(pipeline)
    source = log.source(awaited(count) if awaits else range(count))

    async def main() -> None:
        async with no_leaked_tasks():
            if how == "run":
                results = await pipeline.run(source)
            elif how == "feed":
                async with pipeline:
                    assert await pipeline.feed(source) == count
                    await pipeline.join()
                results = pipeline.results
            elif how == "open":
                async with pipeline.open(source) as run:
                    pass
                results = run.results
            else:
                stream = pipeline.stream(source, ordered=how == "ordered", buffer_size=capacity)
                async with stream as taken:
                    async for _ in log.sink(taken):
                        pass
                assert sorted(result.value for result in log.taken) == list(range(count))
                assert_promises(log)
                return
        assert results.values == list(range(count))
        assert_promises(log, results)
        busy = Counter(event.stage for event in log.status_events if event.status == "completed")
        assert busy == {stage.name: count for stage in pipeline.stages if count}
        assert pipeline.get_stats().items_in_flight == 0

    explore(main, backend=backend, schedule=schedule)


@row(24, MANY)
@pytest.mark.parametrize("capacity", [0, None])
async def test_500_stages_process_each_item(capacity: int | None) -> None:
    async def count(value: int) -> int:
        await checkpoint()
        return value + 1

    pipeline = Pipeline(
        [Stage(f"S{number}", 2, [count], queue_capacity=capacity) for number in range(500)]
    )
    with EventLog(pipeline) as log:
        results = await pipeline.run(log.source(range(5)))
        assert results.values == list(range(500, 505))
        assert_promises(log, results)
    async with pipeline.stream(range(5), ordered=True) as stream:
        assert [result.value async for result in stream] == list(range(500, 505))
    stats = pipeline.get_stats()
    assert {each.completed_items for each in stats.stage_stats.values()} == {5}


@row(24, MANY)
@both_backends
def test_500_stages_can_be_cancelled(backend: str) -> None:
    """Cancellation is injected at every thousandth step only, because there are so many steps."""
    left = 0

    async def main() -> None:
        nonlocal left
        pipeline = Pipeline([Stage(f"S{number}", 1, [same]) for number in range(500)])
        async with no_leaked_tasks():
            try:
                await pipeline.run(range(3))
            finally:
                left += pipeline.get_stats().items_in_flight

    for exploration in at_each_step(backend, main, cancel, interval=1000):
        exploration.run(main)
        assert exploration.cancelled
    assert left == 0


# Run in a separate process: other tests and coverage would change the figures here.
BUSY = """
import sys, tracemalloc
import anyio
from antflow import Pipeline, Stage

WORKERS = 10_000

async def main():
    all_busy = anyio.Event()
    busy = held = 0

    async def task(value):
        nonlocal busy, held
        busy += 1
        if busy == WORKERS:
            held = tracemalloc.get_traced_memory()[0] - before
            assert pipeline.get_stats().stage_stats["A"].in_progress_items == WORKERS
            all_busy.set()
        await all_busy.wait()
        return value

    pipeline = Pipeline([Stage("A", WORKERS, [task], queue_capacity=0)])
    await Pipeline([Stage("A", 1, [task])], collect_results=False).run([])
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    results = await pipeline.run(range(WORKERS))
    assert results.values == list(range(WORKERS))
    print(held // WORKERS)

anyio.run(main, backend=sys.argv[1])
"""

MANY_ITEMS = """
import sys, tracemalloc
import anyio
from antflow import Pipeline, Stage

ITEMS = 100_000

async def main():
    async def task(value):
        return value

    pipeline = Pipeline([Stage("A", 20, [task]), Stage("B", 20, [task])])
    await pipeline.run(range(10))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    results = await pipeline.run(range(ITEMS))
    assert results.values == list(range(ITEMS))
    print(tracemalloc.get_traced_memory()[1] - before)

anyio.run(main, backend=sys.argv[1])
"""


def measured(script: str, backend: str) -> int:
    """Run *script* in a separate process, and return the number that it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, backend],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stderr == ""
    return int(done.stdout)


@row(24, MANY)
@both_backends
def test_a_busy_worker_takes_at_most_10_kib(
    backend: str, record_figure: Callable[[str, str], None]
) -> None:
    """This includes its loop task, the frames that process its item, and the result."""
    size = measured(BUSY, backend)
    assert 1_000 < size <= 10 * 1024
    record_figure(f"one of 10,000 busy workers, {backend}", f"{size / 1024:.1f} KiB (bound: 10)")


@row(29, MEMORY)
@both_backends
def test_100_000_items_take_at_most_64_mib(
    backend: str, record_figure: Callable[[str, str], None]
) -> None:
    """This is the peak, including all results; these alone take at least a tenth of the bound."""
    size = measured(MANY_ITEMS, backend)
    assert 6 << 20 < size <= 64 << 20
    record_figure(
        f"100,000 items with all results, {backend}", f"{size / 2**20:.0f} MiB (bound: 64)"
    )


@row(25, SIMULTANEOUS)
@explored(
    2,
    ways=st.lists(
        st.sampled_from(["run", "stream", "ordered", "open", "nested"]), min_size=2, max_size=3
    ),
    workers=st.integers(1, 2),
    scope=st.sampled_from(["task", "stage"]),
)
def test_overlapping_and_nested_runs_of_one_pipeline_are_independent(
    backend: str, schedule: list[Decision], ways: list[str], workers: int, scope: Any
) -> None:
    """All runs start at the same time. Items 1 and 3 fail once, item 4 always."""
    tried: Counter[Any] = Counter()
    successes: Counter[Any] = Counter()

    running = 0

    async def task(value: tuple[str, int]) -> Any:
        nonlocal running
        is_inner = value[0].startswith("inner")
        running += not is_inner
        # This is the limit of the tracker.
        assert running <= 1
        try:
            return await attempt(value)
        finally:
            running -= not is_inner

    async def attempt(value: tuple[str, int]) -> Any:
        name, number = value
        tried[value] += 1
        await checkpoint()
        if number == 4 or (number % 2 and tried[value] == 1):
            raise ValueError(number)
        if name.startswith("nested") and number == 2:
            # The inner run has its own workers: with workers=1, that of the outer run is busy.
            inner = await pipeline.run([(f"inner run of {name}", number) for number in range(3)])
            assert inner.values == [(f"inner run of {name}", number) for number in range(3)]
            assert inner.failures == []
        return value

    def count_success(item_id: Any, value: Any, payload: Any) -> None:
        successes[value] += 1

    policy = RetryPolicy(scope=scope, attempts=2, wait_initial=1, wait_jitter=0)
    # The limit is shared by the runs that overlap, but not by the run that a task starts meanwhile.
    limits = {"task": 1}
    tracker = StatusTracker(on_success=count_success, task_concurrency_limits=limits)
    pipeline = Pipeline(
        [Stage("A", workers, [task], policy, queue_capacity=1), Stage("B", 1, [same])],
        status_tracker=tracker,
    )
    succeeded: dict[str, list[int]] = {}
    failed: dict[str, list[int]] = {}

    async def use(way: str, name: str) -> None:
        items = [(name, number) for number in range(5)]
        if way in ("stream", "ordered"):
            async with pipeline.stream(items, ordered=way == "ordered") as stream:
                taken = [result async for result in stream]
            good = [result for result in taken if result.is_success]
            if way == "stream":
                good.sort(key=lambda result: result.sequence_id)
            bad = [result.value for result in taken if not result.is_success]
        else:
            if way == "open":
                async with pipeline.open() as run:
                    assert await run.feed(items) == 5
                results = run.results
            else:
                results = await pipeline.run(items)
            good = list(results)
            bad = [failure.value for failure in results.failures]
        assert {value[0] for value in [*(result.value for result in good), *bad]} == {name}
        succeeded[name] = [result.sequence_id for result in good]
        failed[name] = [value[1] for value in bad]

    async def main() -> None:
        async with no_leaked_tasks(), anyio.create_task_group() as group:
            for number, way in enumerate(ways):
                group.start_soon(use, way, f"{way}, {number}")

    explore(main, backend=backend, schedule=schedule)
    names = [f"{way}, {number}" for number, way in enumerate(ways)]
    assert succeeded == {name: [0, 1, 2, 3] for name in names}
    assert failed == {name: [4] for name in names}
    assert tracker.callback_errors == 0
    inner_names = [f"inner run of {name}" for name in names if name.startswith("nested")]
    assert successes == {
        (name, number): 1
        for name in names + inner_names
        for number in range(4 if name in names else 3)
    }


@row(25, SIMULTANEOUS)
@pytest.mark.parametrize(
    "backends", [("asyncio", "trio"), ("asyncio", "asyncio"), ("trio", "trio")]
)
def test_one_pipeline_runs_in_two_event_loops_in_two_threads(backends: tuple[str, str]) -> None:
    """Half-way, each run waits for the one in the other thread, and so does each nested run."""
    barrier = threading.Barrier(2)
    seen: list[str] = []

    async def task(value: tuple[str, int]) -> Any:
        name, number = value
        await checkpoint()
        if number == 50:
            # This blocks the event loop until the other thread is in the middle of its run, too.
            barrier.wait(timeout=60)
            if not name.startswith("inner"):
                outcomes[f"inner run of {name}"] = await pipeline.run(items(f"inner run of {name}"))
        if number % 10 == 7:
            raise ValueError(name)
        return value

    def items(name: str) -> list[Item]:
        return [Item((name, number), id=f"{name}, {number}") for number in range(100)]

    def raise_in_callback(event: StatusEvent) -> None:
        seen.append(event.status)
        raise ValueError("a callback")

    tracker = StatusTracker(raise_in_callback)
    pipeline = Pipeline(
        [Stage("A", 3, [task], task_attempts=1), Stage("B", 2, [same])], status_tracker=tracker
    )
    outcomes: dict[str, Any] = {}

    def run(backend: str, name: str) -> None:
        outcomes[name] = anyio.run(pipeline.run, items(name), backend=backend)

    names = ["first", "second"]
    threads = [
        threading.Thread(target=run, args=(backend, name)) for backend, name in zip(backends, names)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names += [f"inner run of {name}" for name in names]
    assert sorted(outcomes) == sorted(names)
    good = [number for number in range(100) if number % 10 != 7]
    for name, results in outcomes.items():
        assert results.values == [(name, number) for number in good]
        assert sorted(failure.value for failure in results.failures) == [
            (name, number) for number in range(7, 100, 10)
        ]
    # In each of 4 runs, 90 items are queued, in progress and completed in both stages, and 10 items
    # fail in the first stage.
    assert Counter(seen) == {
        "queued": 4 * 190,
        "in_progress": 4 * 190,
        "completed": 4 * 180,
        "failed": 4 * 10,
    }
    assert tracker.callback_errors == len(seen)
    stats = tracker.get_stats()
    assert (stats["completed"], stats["failed"], sum(stats.values())) == (4 * 90, 4 * 10, 4 * 100)


@row(25, SIMULTANEOUS)
@both_backends
def test_a_second_run_of_the_same_pipeline_is_like_the_first(backend: str) -> None:
    """After a cancelled run, and in another event loop, on this backend and on the other."""
    pipeline = Pipeline([Stage("A", 2, [same], queue_capacity=1), Stage("B", 2, [same])])
    other = "trio" if backend == "asyncio" else "asyncio"

    async def main() -> None:
        await pipeline.run(range(5))

    for exploration in at_each_step(backend, main, cancel):
        exploration.run(main)
        for loop in (other, backend):
            with EventLog(pipeline) as log:
                results = explore(pipeline.run, log.source(range(5)), backend=loop)
                assert results is not None
                assert results.values == list(range(5))
                assert_promises(log, results)
                assert pipeline.get_stats().items_processed == 5
