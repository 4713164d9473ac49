"""Promises as properties: hypothesis draws sources, stages, delays and failures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from attrs import field, frozen
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

    def __init__(self, count: int, plans: list[StagePlan]) -> None:
        self.count = count
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
        room = sum(plan.workers + plan.capacity for plan in self.plans) + 1
        for number in range(self.count):
            self.read += 1
            assert self.read - self.left <= room
            self.check_books()
            yield number

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
        assert summary.total_failed == stats.items_failed == len(self.pipeline.failures)

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
