"""
Bugs that are planted in the engine are found on each backend.

Some are found by one run with many items and retries. The first item that shows the bug differs,
since trio runs its tasks in random order. Nearly all are found by one property that users could
write, under schedules that hypothesis draws. Some of these are not found in the default order.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from antflow import Pipeline, Stage
from antflow.testing import (
    Decision,
    EventLog,
    assert_promises,
    failing,
    flaky,
    schedules,
    slow,
)
from testing import planted
from testing.pipeline_property import Case, cases, keeps_its_promises

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]

# A bug must be found within this many runs. Most need a dozen, the hidden ones a few hundred.
EXAMPLES = 1000

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class FoundError(Exception):
    """The property failed. The argument is the failing case."""


def check(backend: str, examples: int, *, default_order: bool = False) -> None:
    """Check the property with up to *examples* draws, the same ones each time."""
    tried: list[Case] = []
    drawn = st.just([]) if default_order else schedules(gap=8, pause=60)

    @settings(max_examples=examples, database=None, derandomize=True, phases=[Phase.generate])
    @given(case=cases(), schedule=drawn)
    def promises_are_kept(case: Case, schedule: list[Decision]) -> None:
        tried[:] = [case]
        keeps_its_promises(backend, case, schedule)

    try:
        promises_are_kept()
    except Exception as error:
        raise FoundError(tried[0]) from error


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (planted.forget_failures, "P1 .*'failed', but it was not returned"),
        (planted.deliver_some_results_twice, "P1 .*it was returned 2 times"),
        (planted.keep_results_in_order_of_arrival, "P2 .*was returned after number"),
        (
            planted.publish_after_sending,
            "P3 .*: in_progress' (was the first event|followed .*)\\. Expected '[AB]: queued'",
        ),
        (planted.let_the_last_go_first, "P4 .*it started before item"),
        (planted.start_a_worker_too_many, "P5 .*Expected at most"),
        (planted.forget_the_bounds, "P5 .*items are at the stage"),
        (planted.give_one_more_place_for_each_retry, "P5 .*items are at the stage"),
    ],
)
async def test_bugs_are_found_by_a_run(plant: Plant, message: str, monkeypatch: Patch) -> None:
    async def run() -> None:
        delays = slow(lambda value: value % 3)
        fails = failing(when=lambda value: value % 7 == 0)
        pipeline = Pipeline(
            [
                Stage("A", 3, [delays, fails], task_attempts=1, queue_capacity=1),
                Stage("B", 2, [delays, flaky()], "per_stage", queue_capacity=1),
                Stage("C", 1, [slow(2)], queue_capacity=5),
            ]
        )
        log = EventLog(pipeline)
        await pipeline.feed(log.source(range(40), priority=1), priority=1)
        assert_promises(log, pipeline.results)

    await run()
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=message):
        await run()


# With a pattern of the error: a broken promise, a stuck run, or an exception of the engine.
BUGS = [
    (planted.forget_failures, "P1"),
    (planted.deliver_some_results_twice, "P1|IndexError"),
    (planted.keep_results_in_order_of_arrival, "P2"),
    (planted.publish_after_sending, "P3"),
    (planted.let_the_last_go_first, "P4"),
    (planted.start_a_worker_too_many, "P4|P5"),
    (planted.forget_the_bounds, "P5"),
    (planted.free_the_place_of_an_item_that_backs_off, "P5"),
    (planted.close_the_next_stage_when_the_first_worker_leaves, "Closed"),
    (planted.leave_although_nobody_else_is_idle, "Deadlock"),
    (planted.send_a_retry_twice, "P3|RuntimeError|IndexError"),
    (planted.read_one_item_more_than_the_window, "P5"),
    (planted.settle_twice, "Deadlock|PipelineError|P1"),
    (planted.never_settle_what_was_skipped, "Deadlock"),
    (planted.leave_a_gap_in_the_order_for_what_failed, "Deadlock|P1"),
    (planted.send_the_ticket_before_the_record_stands_in_line, "IndexError"),
    (planted.forget_to_wake_the_consumer, "Deadlock"),
    (planted.sleep_through_the_wake_up, "Deadlock"),
    (planted.lose_what_a_cancelled_consumer_had_taken, "P1|P5"),
    (planted.stop_a_feeder_with_an_item_in_hand, "Deadlock"),
    (planted.take_a_cancellation_for_a_failure, "AssertionError"),
]
# These need a task that is held back, which never happens in the default order.
HIDDEN = [
    (planted.take_an_earlier_quiet_for_this_one, "P1"),
    (planted.end_a_run_that_is_quiet_for_a_moment, "PipelineError"),
]


@both
def test_nothing_is_found_where_there_is_no_bug(backend: str) -> None:
    check(backend, 60)


@both
@pytest.mark.parametrize(("plant", "pattern"), BUGS)
def test_bugs_are_found_by_the_property(
    backend: str, plant: Plant, pattern: str, monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises(FoundError) as found:
        check(backend, EXAMPLES)
    assert re.search(pattern, repr(found.value.__cause__))


@both
@pytest.mark.parametrize(("plant", "pattern"), HIDDEN)
def test_some_bugs_are_found_by_schedules_only(
    backend: str, plant: Plant, pattern: str, monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises(FoundError) as found:
        check(backend, EXAMPLES)
    assert re.search(pattern, repr(found.value.__cause__))
    # The same case and others pass in the default order.
    (case,) = found.value.args
    keeps_its_promises(backend, case, [])
    check(backend, 30, default_order=True)
