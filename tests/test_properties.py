"""Promises as properties: hypothesis draws sources, pipelines, delays and failures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from antflow import Pipeline, Stage, StatusEvent
from antflow.testing import DrawnTask, Ended, EventLog, assert_promises, pipelines

pytestmark = pytest.mark.virtual_time

delays = st.sampled_from([0.0, 0.0, 0.5, 1.0, 7.0])
counts = st.integers(0, 25)


class Execution:
    """Subscribes to a drawn pipeline, and checks its statistics at each event and item read."""

    def __init__(self, pipeline: Pipeline, *, streams: bool = False) -> None:
        self.pipeline = pipeline
        self.streams = streams
        self.log = EventLog(pipeline)
        self.subscription = pipeline.events.subscribe(StatusEvent, self.check_statistics)

    def source(self, count: int) -> Iterator[int]:
        for number in self.log.source(range(count)):
            self.check_statistics()
            yield number

    def check_statistics(self, event: StatusEvent | None = None) -> None:
        """Check that the statistics are consistent with each other and with the definition."""
        stats = self.pipeline.get_stats()
        states = self.pipeline.get_worker_states().values()
        busy = Counter(state.stage for state in states if state.status == "busy")
        for definition, stage in zip(self.pipeline.stages, stats.stage_stats.values()):
            assert stage.in_progress_items == busy[stage.stage_name] <= definition.workers
            assert 0 <= stats.queue_sizes[stage.stage_name] <= definition.capacity
        in_flight = sum(
            stage.pending_items + stage.in_progress_items for stage in stats.stage_stats.values()
        )
        assert in_flight == stats.items_in_flight >= 0
        summary = self.pipeline.get_error_summary()
        assert summary.total_failed == stats.items_failed
        if not self.streams:  # streams hand their failures over
            assert stats.items_failed == len(self.pipeline.failures)

    def fails_at(self, value: int) -> Stage | None:
        """Return the stage at which the drawn tasks let an item fail, or None."""
        for stage in self.pipeline.stages:
            if drawn(stage).failures_of(value) >= stage.retry_policy.attempts:
                return stage
        return None

    def attempts(self, count: int) -> Counter[tuple[str, int]]:
        """Return the attempts that the drawn tasks need, by stage and item."""
        attempts: Counter[tuple[str, int]] = Counter()
        for value in range(count):
            for stage in self.pipeline.stages:
                most = stage.retry_policy.attempts
                attempts[stage.name, value] = min(most, drawn(stage).failures_of(value) + 1)
                if drawn(stage).failures_of(value) >= most:
                    break
        return attempts


def drawn(stage: Stage) -> DrawnTask:
    (task,) = stage.tasks
    assert isinstance(task, DrawnTask)
    return task


@given(pipeline=pipelines(), count=counts)
async def test_p1_to_p5_hold_for_runs_and_the_statistics_are_consistent(
    pipeline: Pipeline, count: int
) -> None:
    run = Execution(pipeline)
    results = await pipeline.run(run.source(count))
    assert_promises(run.log, results)
    good = [value for value in range(count) if run.fails_at(value) is None]
    assert results.values == [result.id for result in results] == good
    assert run.log.read == count == len(results) + len(results.failures)
    for failure in results.failures:
        stage = run.fails_at(failure.value)
        assert stage is not None
        assert (failure.stage, failure.attempts) == (stage.name, stage.retry_policy.attempts)
    began = [event for event in run.log.task_events if event.event_type == "start"]
    assert Counter((event.stage, event.item_id) for event in began) == run.attempts(count)
    assert run.subscription.errors == 0
    run.check_statistics()


@given(pipeline=pipelines(), count=counts)
async def test_p5_no_more_tasks_run_than_workers(pipeline: Pipeline, count: int) -> None:
    """The tasks themselves are counted, not their events."""
    running: Counter[str] = Counter()

    def counted(stage: Stage) -> Stage:
        async def task(value: int) -> Any:
            running[stage.name] += 1
            try:
                assert running[stage.name] <= stage.workers
                return await drawn(stage)(value)
            finally:
                running[stage.name] -= 1

        return evolve(stage, tasks=[task])

    results = await Pipeline([counted(stage) for stage in pipeline.stages]).run(range(count))
    assert not [failure for failure in results.failures if failure.error_type == "AssertionError"]
    assert not any(running.values())


@given(
    pipeline=pipelines(),
    count=counts,
    ordered=st.booleans(),
    buffer_size=st.integers(0, 4),
    window=st.none() | st.integers(1, 6),
    leave_after=st.none() | st.integers(0, 20),
    consumer=st.lists(delays, min_size=1, max_size=5),
)
async def test_p1_to_p5_hold_for_streams_also_if_they_are_left_early(
    pipeline: Pipeline,
    count: int,
    ordered: bool,
    buffer_size: int,
    window: int | None,
    leave_after: int | None,
    consumer: list[float],
) -> None:
    """Items are counted as they are read from the source, and as they are taken."""
    run = Execution(pipeline, streams=True)
    stream = pipeline.stream(
        run.source(count),
        ordered=ordered,
        buffer_size=buffer_size,
        window=window if ordered else None,
    )
    taken = 0
    async with stream as results:
        async for result in run.log.sink(results):
            taken += 1
            assert result.value == result.id == result.sequence_id
            assert result.is_success == (run.fails_at(result.sequence_id) is None)
            if leave_after is not None and taken > leave_after:
                break
            await anyio.sleep(consumer[taken % len(consumer)])
    to_the_end = leave_after is None or leave_after >= count
    assert_promises(run.log, complete=to_the_end)
    if to_the_end:
        assert len(run.log.taken) == run.log.read == count
    if ordered:
        assert [result.id for result in run.log.taken] == list(range(taken))
    assert not run.log.read or any(isinstance(entry, Ended) for entry in run.log.entries)
    assert run.subscription.errors == 0
    assert pipeline.get_stats().items_in_flight == 0


@given(
    count=st.integers(0, 30),
    capacities=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    slow=st.lists(delays, min_size=30, max_size=30),
)
async def test_p4_stages_with_one_worker_are_fifo(
    count: int, capacities: list[int], slow: list[float]
) -> None:
    started_by_stage: dict[str, list[int]] = {}

    def stage(number: int, capacity: int) -> Stage:
        started = started_by_stage[f"S{number}"] = []

        async def task(value: int) -> int:
            started.append(value)
            await anyio.sleep(slow[(value + number) % 30])
            return value

        return Stage(f"S{number}", 1, [task], queue_capacity=capacity)

    pipeline = Pipeline([stage(number, capacity) for number, capacity in enumerate(capacities)])
    async with pipeline.stream(range(count), buffer_size=1) as results:
        assert [result.value async for result in results] == list(range(count))
    assert all(order == list(range(count)) for order in started_by_stage.values())


@frozen
class FeedPlan:
    """One call of `feed()`: items, delay, priority, target stage, and time until cancellation."""

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


@given(pipeline=pipelines(), feed_plans=st.lists(feeds, max_size=6), join_after=delays)
async def test_p1_to_p5_hold_for_live_runs(
    pipeline: Pipeline, feed_plans: list[FeedPlan], join_after: float
) -> None:
    """Each item read has one outcome after `join()`, also if its feed was cancelled."""
    log = EventLog(pipeline)

    async def feed(plan: FeedPlan) -> None:
        await anyio.sleep(plan.after)
        target = pipeline.stages[min(plan.target, len(pipeline.stages) - 1)].name
        items = log.source(range(plan.count), priority=plan.priority)
        with anyio.move_on_after(plan.patience):
            fed = await pipeline.feed(items, target, plan.priority)
            assert fed == plan.count

    async with pipeline:
        async with anyio.create_task_group() as group:
            for feed_plan in feed_plans:
                group.start_soon(feed, feed_plan)
            await anyio.sleep(join_after)
            await pipeline.join()
        await pipeline.join()
        assert_promises(log, pipeline.results)
    assert_promises(log, pipeline.results)
    assert pipeline.get_stats().items_in_flight == 0
