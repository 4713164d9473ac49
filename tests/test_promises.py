"""The promises of the library, each with at least one test, on all backends."""

from __future__ import annotations

import itertools
import logging
import math
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import (
    Item,
    Pipeline,
    RetryPolicy,
    Stage,
    StageValidationError,
    StatusEvent,
    StatusTracker,
)

NO_WAIT = RetryPolicy(wait_initial=0, wait_max=0, wait_jitter=0)
STAGE_NO_WAIT = RetryPolicy(scope="stage", wait_initial=0, wait_max=0, wait_jitter=0)


async def same(value: Any) -> Any:
    return value


def raises(error: BaseException) -> Any:
    async def raising(value: Any) -> Any:
        raise error

    return raising


class Gate:
    """A task that blocks each item until its event is set."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.inside: list[Any] = []

    async def __call__(self, value: Any) -> Any:
        self.inside.append(value)
        await self.event.wait()
        return value


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
async def test_p1_every_input_ends_in_exactly_one_outcome(retry: Any) -> None:
    tried: defaultdict[Any, int] = defaultdict(int)

    async def fail_sometimes(value: Any) -> Any:
        tried[value] += 1
        await checkpoint()
        if value % 5 == 0:
            raise ValueError(value)
        if value % 3 == 0 and tried[value] < 3:
            raise KeyError(value)
        return value

    pipeline = Pipeline(
        [
            Stage("A", 4, [fail_sometimes], retry=retry, task_wait_seconds=0),
            Stage("B", 2, [same], skip_if=lambda value: value % 2),
        ]
    )
    results = await pipeline.run(range(200))
    assert results.values == [value for value in range(200) if value % 5]
    assert sorted(failure.item_id for failure in results.failures) == list(range(0, 200, 5))
    assert {tried[value] for value in range(200) if value % 5 == 0} == {3}


async def test_p1_holds_for_any_value_and_id() -> None:
    error = ValueError("a value")
    inputs = [
        None,
        error,
        {"no": "id"},
        {"id": "x"},
        {"id": "x", "value": None, "extra": 1},
        {"id": [1], "value": 5},
        Item(7, id="x", metadata={"a": 1}),
        Item("numbered"),
        Item("none", id=None),
        (),
        math.nan,
    ]
    tracker = StatusTracker()
    results = await Pipeline([Stage("A", 3, [same])], status_tracker=tracker).run(inputs)
    assert [result.id for result in results] == [0, 1, 2, "x", "x", [1], "x", 7, None, 9, 10]
    assert results.values[:10] == [
        None,
        error,
        {"no": "id"},
        {"id": "x"},
        None,
        5,
        7,
        "numbered",
        "none",
        (),
    ]
    assert results[4].metadata == {"extra": 1}
    assert results[6].metadata == {"a": 1}
    assert [result.sequence_id for result in results] == list(range(11))
    assert tracker.get_status([1]) is not None


async def test_p2_results_are_in_input_order() -> None:
    """The first item is blocked until all others are finished."""
    others_done = anyio.Event()
    left = 29

    async def hold_first(value: int) -> int:
        nonlocal left
        if value == 0:
            await others_done.wait()
        else:
            left -= 1
            if left == 0:
                others_done.set()
        return value

    results = await Pipeline([Stage("A", 4, [hold_first]), Stage("B", 4, [same])]).run(range(30))
    assert results.values == list(range(30))


async def test_p3_the_events_of_an_item_are_in_order() -> None:
    tried: defaultdict[int, int] = defaultdict(int)

    async def flaky(value: int) -> int:
        tried[value] += 1
        if value == 1 and tried[value] < 3:
            raise ValueError
        if value == 2:
            raise KeyError
        return value

    seen: list[tuple[Any, str, str]] = []
    tracker = StatusTracker()

    async def on_status_change(event: Any) -> None:
        await checkpoint()
        seen.append((event.item_id, event.stage, event.status))
        # The tracker is updated before the callback is called.
        assert tracker.get_status(event.item_id) == event

    tracker = StatusTracker(on_status_change)
    pipeline = Pipeline(
        [Stage("A", 2, [flaky], retry=STAGE_NO_WAIT), Stage("B", 2, [same])],
        status_tracker=tracker,
    )
    await pipeline.run(range(3))
    assert tracker.callback_errors == 0

    def of(item: int) -> list[str]:
        return [f"{stage} {status}" for item_id, stage, status in seen if item_id == item]

    to_b = ["B queued", "B in_progress", "B completed"]
    assert of(0) == ["A queued", "A in_progress", "A completed", *to_b]
    again = ["A retrying", "A in_progress"]
    assert of(1) == ["A queued", "A in_progress", *again, *again, "A completed", *to_b]
    assert of(2) == ["A queued", "A in_progress", *again, *again, "A failed"]


async def test_p4_stages_with_one_worker_are_fifo() -> None:
    started: dict[str, list[int]] = {"A": [], "B": []}

    def note(stage: str) -> Any:
        async def task(value: int) -> int:
            started[stage].append(value)
            if value % 7 == 0:
                await checkpoint()
            return value

        return task

    await Pipeline([Stage(stage, 1, [note(stage)]) for stage in started]).run(range(300))
    assert started == {"A": list(range(300)), "B": list(range(300))}


@pytest.mark.parametrize("scope", ["per_task", "per_stage"])
@pytest.mark.parametrize("capacity", [0, 1, 5])
async def test_p5_the_source_is_read_only_as_far_as_the_queues_have_space(
    capacity: int, scope: Any
) -> None:
    gate = Gate()
    read = 0

    def endless() -> Any:
        nonlocal read
        for number in itertools.count():
            read += 1
            yield number

    pipeline = Pipeline(
        [
            Stage("A", 3, [same], queue_capacity=capacity, retry=scope),
            Stage("B", 2, [gate], queue_capacity=capacity, retry=scope),
        ]
    )
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.run, endless())
        await anyio.wait_all_tasks_blocked()
        assert read == (3 + capacity) + (2 + capacity) + 1
        stats = pipeline.get_stats()
        assert stats.stage_stats["B"].in_progress_items == len(gate.inside) == 2
        assert stats.queue_sizes == {"A": capacity, "B": capacity}
        assert stats.items_in_flight == read
        group.cancel_scope.cancel()


async def test_p5_a_stage_that_retries_every_item_stays_within_its_slots() -> None:
    waiting = 0

    async def fail(value: int) -> None:
        raise ValueError

    read = 0

    def endless() -> Any:
        nonlocal read
        for number in itertools.count():
            read += 1
            yield number

    stage = Stage("A", 2, [fail], retry="per_stage", queue_capacity=4, task_wait_seconds=3600)
    pipeline = Pipeline([stage])
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.run, endless())
        await anyio.wait_all_tasks_blocked()
        stats = pipeline.get_stats().stage_stats["A"]
        waiting = stats.pending_items
        assert (read, waiting, stats.in_progress_items) == (7, 7, 0)
        group.cancel_scope.cancel()


async def test_p6_failures_and_callback_errors_do_not_affect_other_items(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail_on_three(value: int) -> int:
        if value == 3:
            raise ValueError
        return value

    def broken(*args: Any) -> None:
        raise RuntimeError("broken callback")

    async def broken_async(*args: Any) -> None:
        await checkpoint()
        raise RuntimeError("broken async callback")

    tracker = StatusTracker(broken, broken_async, on_success=broken_async, on_failure=broken)
    pipeline = Pipeline(
        [Stage("A", 2, [fail_on_three], retry=NO_WAIT, on_success=broken, on_failure=broken)],
        status_tracker=tracker,
    )
    with caplog.at_level(logging.ERROR, "antflow"):
        results = await pipeline.run(range(10))
    assert len(results) == 9
    # The callbacks of the tracker, then those of the stage.
    assert tracker.callback_errors == (3 * 10 + 12 + 9 + 1) + (9 + 1)
    assert len(caplog.records) == 6  # one for each callback
    assert "on_status_change callback" in caplog.text
    assert "on_success callback" in caplog.text
    assert "of stage 'A'" in caplog.text
    assert "broken async callback" in caplog.text  # the traceback is logged


async def test_p7_cancelling_the_caller_cancels_every_task() -> None:
    gate = Gate()
    cancelled: list[int] = []
    closed: list[str] = []

    async def task(value: int) -> None:
        try:
            await gate(value)
        except anyio.get_cancelled_exc_class():
            cancelled.append(value)
            raise

    async def source() -> Any:
        try:
            for number in itertools.count():
                yield number
        finally:
            closed.append("source")
            await checkpoint()
            closed.append("not reached: the scope is cancelled")

    pipeline = Pipeline([Stage("A", 5, [task], queue_capacity=2), Stage("B", 1, [same])])
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(pipeline.run, source())
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert sorted(cancelled) == [0, 1, 2, 3, 4]
    assert closed == ["source"]
    assert pipeline.get_stats().items_in_flight == 0
    assert {state.status for state in pipeline.get_worker_states().values()} == {"idle"}
    assert pipeline.failures == []
    # The pipeline can run again.
    gate.event.set()
    assert len(await pipeline.run(range(20))) == 20


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_p8_items_read_before_a_source_error_are_finished(kind: str) -> None:
    error = OSError("disk gone")

    def source() -> Any:
        yield from range(100)
        raise error

    async def async_source() -> Any:
        for number in range(100):
            yield number
        raise error

    async def fail_on_odd(value: int) -> int:
        await checkpoint()
        if value % 2:
            raise ValueError
        return value

    pipeline = Pipeline([Stage("A", 3, [fail_on_odd], task_attempts=1)])
    with pytest.raises(OSError, match="disk gone") as caught:
        await pipeline.run(source() if kind == "sync" else async_source())
    assert caught.value is error
    assert pipeline.results.values == list(range(0, 100, 2))
    assert sorted(item.item_id for item in pipeline.failures) == list(range(1, 100, 2))
    assert pipeline.results.failures == pipeline.failures


def test_p9_a_bad_definition_fails_when_it_is_built() -> None:
    with pytest.raises(StageValidationError) as caught:
        Stage("Fetch", "3", [same])  # type: ignore[arg-type]
    assert str(caught.value) == (
        "Stage 'Fetch': workers must be a whole number of at least 1, got '3' (str). "
        "Write workers=3, without the quotes."
    )


@pytest.mark.virtual_time
async def test_p10_idle_workers_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle workers do not wake while one item takes an hour."""
    from antflow._workers import worker_loop

    wakes = 0
    wait_for_item = worker_loop._wait_for_item

    async def counted(*args: Any) -> Any:
        nonlocal wakes
        wakes += 1
        return await wait_for_item(*args)

    monkeypatch.setattr(worker_loop, "_wait_for_item", counted)

    async def hour(value: int) -> int:
        await anyio.sleep(3600)
        return value

    began = anyio.current_time()
    pipeline = Pipeline([Stage("A", 100, [same]), Stage("B", 100, [hour]), Stage("C", 9, [same])])
    await pipeline.run([1])
    assert anyio.current_time() - began == pytest.approx(3600)
    assert wakes <= 9  # three for each stage


@pytest.mark.parametrize("succeeds", [True, False])
@pytest.mark.parametrize(("capacity", "most"), [(math.inf, 257), (None, 128 + 8), (3, 3 + 8)])
async def test_workers_yield_although_their_tasks_never_wait(
    capacity: float | None, most: int, succeeds: bool
) -> None:
    """A worker yields after at most the items that its queue and senders hold, or 257 items."""
    done = 0
    waiting = anyio.Event()

    async def count(value: int) -> int:
        nonlocal done
        if value == 0:
            await waiting.wait()
        done += 1
        if succeeds:
            return value
        raise ValueError(value)

    samples: list[int] = []
    last = Stage("B", 1, [count], task_attempts=1, queue_capacity=capacity)
    pipeline = Pipeline([Stage("A", 8, [same]), last])
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.run, range(1000))
        await anyio.wait_all_tasks_blocked()
        assert pipeline.get_stats().queue_sizes["B"] == min(last.capacity, 999)
        waiting.set()
        while done < 1000:
            await checkpoint()
            samples.append(done)
    steps = [after - before for before, after in zip([0, *samples], samples)]
    # trio shuffles its tasks in each pass, so a worker may run twice within one step.
    assert max(steps) <= 2 * most


async def test_workers_yield_although_many_feeders_wait() -> None:
    done = 0
    gate = anyio.Event()
    samples: list[int] = []

    async def count(value: int) -> int:
        nonlocal done
        if value == 0:
            await gate.wait()
        done += 1
        return value

    async with Pipeline([Stage("A", 1, [count])]) as pipeline, anyio.create_task_group() as group:
        await pipeline.feed([0])
        for number in range(1, 1000):
            group.start_soon(pipeline.feed, [number])
        await anyio.wait_all_tasks_blocked()
        gate.set()
        while done < 1000:
            await checkpoint()
            samples.append(done)
    steps = [after - before for before, after in zip([0, *samples], samples)]
    assert max(steps) <= 2 * 257


async def test_workers_yield_although_many_stopped_feeders_send() -> None:
    """Each source yields one more item at the stop, which is sent after its feeder has ended."""
    done = 0
    steps: list[int] = []
    gate = anyio.Event()

    async def task(value: Any) -> Any:
        nonlocal done
        if value == "held":
            await gate.wait()
        done += 1
        return value

    async def stubborn() -> AsyncGenerator[int, None]:
        with suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep_forever()
        yield 1

    async def watch() -> None:
        last = 0
        while True:
            steps.append(done - last)
            last = done
            await checkpoint()

    stage = Stage("A", 1, [task], queue_capacity=256)
    async with anyio.create_task_group() as watching, Pipeline([stage]).open() as run:
        async with anyio.create_task_group() as feeding:
            await run.feed(["held"] + [0] * 256)
            for _ in range(600):
                feeding.start_soon(run.feed, stubborn())
            await anyio.wait_all_tasks_blocked()
            feeding.start_soon(run.shutdown)
            await anyio.wait_all_tasks_blocked()
            watching.start_soon(watch)
            gate.set()
        watching.cancel_scope.cancel()
    assert done == 1 + 256 + 600
    # trio shuffles its tasks in each pass, so a worker may run twice within one step.
    assert max(steps) <= 2 * 257


async def test_feeders_yield_although_source_and_handler_never_wait() -> None:
    """The handler is async, but never awaits anything."""
    read = 0
    samples = [0]

    def source() -> Any:
        nonlocal read
        while read < 1999:
            read += 1
            yield read

    async def handle(event: Any) -> None:
        pass

    pipeline = Pipeline([Stage("A", 1, [same], queue_capacity=math.inf)])
    pipeline.events.subscribe(StatusEvent, handle)
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.run, source())
        while read < 1999:
            await checkpoint()
            samples.append(read)
    assert max(after - before for before, after in itertools.pairwise(samples)) <= 2 * 257


def stages_that_depend_on_the_sixth_item() -> tuple[list[Stage], anyio.Event]:
    """Return two stages: at its first item, the second waits for the event that the first sets."""
    sixth = anyio.Event()

    async def first(value: int) -> int:
        if value == 5:
            sixth.set()
        return value

    async def second(value: int) -> int:
        if value == 0:
            await sixth.wait()
        return value

    stages = [Stage("A", 10, [first]), Stage("B", 1, [second], queue_capacity=0)]
    return stages, sixth


@pytest.mark.parametrize("subscribed", [False, True])
async def test_spare_workers_start_although_others_are_blocked(subscribed: bool) -> None:
    """The next stage waits for the sixth item of this one, which needs another worker."""
    stages, _ = stages_that_depend_on_the_sixth_item()
    pipeline = Pipeline(stages, status_tracker=StatusTracker() if subscribed else None)
    with anyio.fail_after(5):
        results = await pipeline.run(range(8))
    assert results.values == list(range(8))


@pytest.mark.parametrize("subscribed", [False, True])
async def test_workers_that_would_only_block_do_not_start(subscribed: bool) -> None:
    """While items are settled, unblocked workers take as many as the next queue can hold."""
    stages = [Stage(name, 1000, [same]) for name in "ABC"]
    pipeline = Pipeline(stages, status_tracker=StatusTracker() if subscribed else None)
    async with pipeline.stream(range(5000)) as results:
        async for _ in results:
            pass
    metrics = pipeline.get_worker_metrics().values()
    assert len([metric for metric in metrics if metric.items_processed]) <= 3 * 8


async def test_workers_start_if_items_are_settled_at_other_stages_only() -> None:
    """The second stage waits for the first, while other items are settled at the third."""
    stages, sixth = stages_that_depend_on_the_sixth_item()
    pipeline = Pipeline([*stages, Stage("C", 10, [same])], collect_results=False)

    def until_the_sixth() -> Any:
        return itertools.takewhile(lambda _: not sixth.is_set(), range(100_000))

    async with pipeline, anyio.create_task_group() as group:
        group.start_soon(pipeline.feed, until_the_sixth(), "C")
        group.start_soon(pipeline.feed, range(8))
        await sixth.wait()
        # The workers started while items were still being settled.
        assert pipeline.get_stats().items_processed < 50_000


async def test_workers_start_soon_after_items_stop_being_settled() -> None:
    """After many items, the next stage waits for one that only a tenth worker can take."""
    count, capacity = 20_000, 128
    needed = anyio.Event()
    checkpoints = 0

    async def first(value: int) -> int:
        if value == count + capacity + 10:
            needed.set()
        return value

    async def second(value: int) -> int:
        nonlocal checkpoints
        if value == count:
            while not needed.is_set():
                checkpoints += 1
                await checkpoint()
        return value

    # Twice as many workers, because items may overtake each other before the next queue.
    stages = [Stage("A", 20, [first]), Stage("B", 1, [second], queue_capacity=capacity)]
    async with Pipeline(stages).stream(range(count + 1000)) as results:
        async for _ in results:
            pass
    assert 0 < checkpoints < 200


async def test_all_workers_start_if_no_item_is_settled() -> None:
    """Each worker holds one result until the consumer of the stream takes it."""
    pipeline = Pipeline([Stage("A", 50, [same])])
    async with pipeline.stream(range(100), buffer_size=1) as results:
        async for _ in results:
            break
        await anyio.wait_all_tasks_blocked()
        metrics = pipeline.get_worker_metrics().values()
        # One result was taken, and one is in the buffer.
        assert sum(metric.items_processed for metric in metrics) == 52
        assert all(metric.items_processed for metric in metrics)


async def test_idle_workers_retire_and_start_again() -> None:
    """All idle workers but two retire, and start again when there are items."""
    gates = [anyio.Event(), anyio.Event()]
    running: list[int] = []

    async def hold(value: int) -> int:
        await gates[value // 100].wait()
        return value

    async def source() -> Any:
        for value in [*range(50), *range(100, 150)]:
            if value == 100:
                await anyio.wait_all_tasks_blocked()
                running.append(sum(_is_worker(task) for task in anyio.get_running_tasks()))
                gates[0].set()
                await anyio.wait_all_tasks_blocked()
                running.append(sum(_is_worker(task) for task in anyio.get_running_tasks()))
            yield value
        await anyio.wait_all_tasks_blocked()
        running.append(sum(_is_worker(task) for task in anyio.get_running_tasks()))
        gates[1].set()

    def _is_worker(task: anyio.TaskInfo) -> bool:
        return bool(task.name and re.fullmatch(r"A-W\d+", task.name))

    results = await Pipeline([Stage("A", 50, [hold])]).run(source())
    assert len(results) == 100
    assert running == [50, 2, 50]


def test_p10_importing_adds_no_log_handler_and_loads_no_optional_package() -> None:
    code = (
        "import logging, sys, antflow;"
        "assert not logging.getLogger('antflow').handlers and not logging.root.handlers;"
        "optional = {'trio', 'uvloop', 'rich', 'hypothesis', 'pytest', 'sqlite3', 'antflow._cli'};"
        "print(sorted(optional & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_p11_one_pipeline_runs_on_asyncio_and_on_trio() -> None:
    pipeline = Pipeline([Stage("A", 2, [same]), Stage("B", 2, [str])])
    for backend in ("asyncio", "trio", "asyncio"):
        assert anyio.run(pipeline.run, range(3), backend=backend).values == ["0", "1", "2"]


def test_p11_the_first_example_of_the_guide_runs_on_asyncio_and_on_trio() -> None:
    import asyncio

    import trio

    async def fetch(x: int) -> str:
        return f"data_{x}"

    async def process(x: str) -> str:
        return x.upper()

    fetch_stage = Stage(name="Fetch", workers=3, tasks=[fetch])
    process_stage = Stage(name="Process", workers=2, tasks=[process])
    pipeline = Pipeline(stages=[fetch_stage, process_stage])

    async def main() -> list[str]:
        results = await pipeline.run(range(10))
        return [result.value for result in results]

    expected = [f"DATA_{number}" for number in range(10)]
    assert asyncio.run(main()) == expected
    assert trio.run(main) == expected
