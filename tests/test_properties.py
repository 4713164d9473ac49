"""Promises as properties: hypothesis draws sources, stages, delays and failures."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from attrs import evolve, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from antflow import Pipeline, RetryPolicy, Stage, StatusEvent, StatusTracker

pytestmark = pytest.mark.virtual_time


@frozen
class StagePlan:
    """A stage, and what its task does with the item at each index, attempt by attempt."""

    workers: int
    capacity: int
    scope: Any
    attempts: int
    # For item n: how long an attempt takes, and how many attempts fail before one succeeds.
    delays: list[float]
    failures: list[int] = field()


delays = st.sampled_from([0.0, 0.0, 0.5, 1.0, 7.0])


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, list[StagePlan]]:
    count = draw(st.integers(0, 25))
    stages = [
        StagePlan(
            workers=draw(st.integers(1, 4)),
            capacity=draw(st.integers(0, 3)),
            scope=draw(st.sampled_from(["task", "stage"])),
            attempts=draw(st.integers(1, 3)),
            delays=draw(st.lists(delays, min_size=count, max_size=count)),
            failures=draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    return count, stages


class Execution:
    """Builds the pipeline of a plan, runs it, and keeps count from the outside."""

    def __init__(self, count: int, plans: list[StagePlan], *, streams: bool = False) -> None:
        self.count = count
        self.streams = streams
        self.plans = plans
        self.read = 0
        self.left = 0
        self.running: Counter[str] = Counter()
        self.most_running: Counter[str] = Counter()
        self.attempts: Counter[tuple[str, int]] = Counter()
        self.events: defaultdict[int, list[StatusEvent]] = defaultdict(list)
        self.tracker = StatusTracker(self.note)
        self.pipeline = Pipeline(
            [self.stage(f"S{index}", plan) for index, plan in enumerate(plans)],
            status_tracker=self.tracker,
        )

    def stage(self, name: str, plan: StagePlan) -> Stage:
        async def task(value: int) -> int:
            self.running[name] += 1
            self.most_running[name] = max(self.most_running[name], self.running[name])
            self.attempts[name, value] += 1
            try:
                if plan.delays[value]:
                    await anyio.sleep(plan.delays[value])
                if self.attempts[name, value] <= plan.failures[value]:
                    raise ValueError(value)
            finally:
                self.running[name] -= 1
            return value

        policy = RetryPolicy(
            scope=plan.scope, attempts=plan.attempts, wait_initial=2, wait_max=9, wait_jitter=0
        )
        return Stage(name, plan.workers, [task], policy, queue_capacity=plan.capacity)

    def source(self) -> Iterator[int]:
        room = self.room() + 1
        for number in range(self.count):
            self.read += 1
            assert self.read - self.left <= room
            self.check_books()
            yield number

    def room(self) -> int:
        """How many items fit into the stages."""
        return sum(plan.workers + plan.capacity for plan in self.plans)

    def note(self, event: StatusEvent) -> None:
        self.events[event.item_id].append(event)
        if event.status == "failed" or (
            event.status == "completed" and event.stage == f"S{len(self.plans) - 1}"
        ):
            self.left += 1
        self.check_books()

    def check_books(self) -> None:
        """The figures fit together, with each other and with what was seen from outside."""
        stats = self.pipeline.get_stats()
        states = self.pipeline.get_worker_states().values()
        busy = Counter(state.stage for state in states if state.status == "busy")
        for plan, stage in zip(self.plans, stats.stage_stats.values()):
            assert stage.in_progress_items == busy[stage.stage_name] <= plan.workers
            assert 0 <= stats.queue_sizes[stage.stage_name] <= plan.capacity
        under_way = sum(
            stage.pending_items + stage.in_progress_items for stage in stats.stage_stats.values()
        )
        assert under_way == stats.items_in_flight >= 0
        summary = self.pipeline.get_error_summary()
        assert summary.total_failed == stats.items_failed
        if not self.streams:  # which hand their failures over
            assert stats.items_failed == len(self.pipeline.failures)

    def fails_at(self, value: int) -> int | None:
        """Work out from the plan in which stage an item fails, if it does."""
        for index, plan in enumerate(self.plans):
            if plan.failures[value] >= plan.attempts:
                return index
        return None


@given(plan=plans())
async def test_p1_p2_each_input_has_one_outcome_and_results_are_in_input_order(
    plan: tuple[int, list[StagePlan]],
) -> None:
    run = Execution(*plan)
    results = await run.pipeline.run(run.source())
    good = [value for value in range(run.count) if run.fails_at(value) is None]
    assert results.values == [result.id for result in results] == good
    failed = {failure.item_id: failure for failure in results.failures}
    assert len(failed) == len(results.failures) == run.count - len(good)
    for value, failure in failed.items():
        index = run.fails_at(value)
        assert index is not None
        assert failure.stage == f"S{index}"
        assert failure.attempts == run.plans[index].attempts == run.attempts[f"S{index}", value]
    assert run.tracker.callback_errors == 0
    run.check_books()


@given(plan=plans())
async def test_p3_events_of_an_item_follow_the_grammar(plan: tuple[int, list[StagePlan]]) -> None:
    run = Execution(*plan)
    await run.pipeline.run(run.source())
    assert set(run.events) == set(range(run.count))
    for value, events in run.events.items():
        expected = []
        for index, stage in enumerate(run.plans):
            fails = run.fails_at(value) == index
            again = 0
            if stage.scope == "stage":
                again = min(stage.failures[value], stage.attempts - 1)
            expected += [(f"S{index}", status) for status in ("queued", "in_progress")]
            expected += [(f"S{index}", status) for status in ("retrying", "in_progress")] * again
            expected.append((f"S{index}", "failed" if fails else "completed"))
            if fails:
                break
        assert [(event.stage, event.status) for event in events] == expected


@given(plan=plans())
async def test_p5_no_more_than_workers_run_and_no_more_than_there_is_room_for_is_read(
    plan: tuple[int, list[StagePlan]],
) -> None:
    """What was read ahead is checked in `Execution.source`, queues and books at each event."""
    run = Execution(*plan)
    results = await run.pipeline.run(run.source())
    assert run.read == run.count == len(results) + len(results.failures)
    for index, stage in enumerate(run.plans):
        assert run.most_running[f"S{index}"] <= stage.workers
    assert run.tracker.callback_errors == 0


@given(
    plan=plans(),
    ordered=st.booleans(),
    buffer_size=st.integers(0, 4),
    window=st.none() | st.integers(1, 6),
    leave_after=st.none() | st.integers(0, 20),
    consumer=st.lists(delays, min_size=1, max_size=5),
)
async def test_p1_p2_p5_hold_for_streams_wherever_they_are_left(
    plan: tuple[int, list[StagePlan]],
    ordered: bool,
    buffer_size: int,
    window: int | None,
    leave_after: int | None,
    consumer: list[float],
) -> None:
    """Counted from both sides: what was read from the source, and what came out."""
    run = Execution(*plan, streams=True)
    window = window if ordered else None
    most = run.room() if window is None else window
    if not ordered:
        most += buffer_size + 1
    read = 0
    closed = False
    taken: list[int] = []

    def source() -> Iterator[int]:
        nonlocal read, closed
        try:
            for number in range(run.count):
                read += 1
                assert read - len(taken) <= most
                yield number
        finally:
            closed = True

    stream = run.pipeline.stream(source(), ordered=ordered, buffer_size=buffer_size, window=window)
    async with stream as results:
        async for result in results:
            taken.append(result.sequence_id)
            assert result.value == result.id == result.sequence_id
            assert result.is_success == (run.fails_at(result.sequence_id) is None)
            if leave_after is not None and len(taken) > leave_after:
                break
            await anyio.sleep(consumer[len(taken) % len(consumer)])
    assert closed or not read
    assert len(set(taken)) == len(taken)
    if ordered:
        assert taken == list(range(len(taken)))
    if leave_after is None or leave_after >= run.count:
        assert sorted(taken) == list(range(run.count))
    assert run.tracker.callback_errors == 0
    assert sum(run.running.values()) == 0
    assert run.pipeline.get_stats().items_in_flight == 0


@given(
    count=st.integers(0, 30),
    capacities=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    slow=st.lists(delays, min_size=30, max_size=30),
)
async def test_p4_single_workers_are_first_in_first_out(
    count: int, capacities: list[int], slow: list[float]
) -> None:
    begun: dict[str, list[int]] = {}

    def stage(number: int, capacity: int) -> Stage:
        mine = begun[f"S{number}"] = []

        async def task(value: int) -> int:
            mine.append(value)
            await anyio.sleep(slow[(value + number) % 30])
            return value

        return Stage(f"S{number}", 1, [task], queue_capacity=capacity)

    pipeline = Pipeline([stage(number, capacity) for number, capacity in enumerate(capacities)])
    async with pipeline.stream(range(count), buffer_size=1) as results:
        assert [result.value async for result in results] == list(range(count))
    assert all(order == list(range(count)) for order in begun.values())


@frozen
class FeedPlan:
    """One call of feed(): what, when, how urgent, from which stage on, and when it is cancelled."""

    count: int
    after: float
    priority: int
    target: int
    patience: float


feeds = st.builds(
    FeedPlan,
    count=st.integers(0, 8),
    after=delays,
    priority=st.sampled_from([100, 100, 1, 7, 200]),
    target=st.integers(0, 2),
    patience=st.sampled_from([math.inf, math.inf, 0.5, 1.0, 3.0]),
)


@given(plan=plans(), feed_plans=st.lists(feeds, max_size=6), join_after=delays)
async def test_p1_holds_for_live_pipelines_however_they_are_fed(
    plan: tuple[int, list[StagePlan]], feed_plans: list[FeedPlan], join_after: float
) -> None:
    """Whatever was read has one outcome, also if the feed was cut short; and join() knows."""
    _, stages = plan
    read: list[int] = []
    numbers = itertools.count()
    stages = [evolve(stage, delays=[1.0, 0.0, 0.5], failures=[0, 2, 0, 1]) for stage in stages]
    tried: Counter[tuple[int, int]] = Counter()

    def stage(number: int, plan: StagePlan) -> Stage:
        async def task(value: int) -> int:
            tried[number, value] += 1
            await anyio.sleep(plan.delays[value % 3])
            if tried[number, value] <= plan.failures[value % 4]:
                raise ValueError(value)
            return value

        policy = RetryPolicy(scope=plan.scope, attempts=plan.attempts, wait_initial=1)
        return Stage(f"S{number}", plan.workers, [task], policy, queue_capacity=plan.capacity)

    def source(count: int) -> Iterator[int]:
        for _ in range(count):
            read.append(next(numbers))
            yield read[-1]

    async def feed(plan: FeedPlan) -> None:
        await anyio.sleep(plan.after)
        target = f"S{min(plan.target, len(stages) - 1)}"
        with anyio.move_on_after(plan.patience):
            fed = await pipeline.feed(source(plan.count), target, plan.priority)
            assert fed == plan.count

    pipeline = Pipeline([stage(number, plan) for number, plan in enumerate(stages)])

    def check() -> None:
        outcomes = pipeline.results.values + [failed.value for failed in pipeline.failures]
        assert sorted(outcomes) == sorted(read)

    async with pipeline:
        async with anyio.create_task_group() as group:
            for feed_plan in feed_plans:
                group.start_soon(feed, feed_plan)
            await anyio.sleep(join_after)
            await pipeline.join()
        await pipeline.join()
        check()
    check()
    assert pipeline.get_stats().items_in_flight == 0
