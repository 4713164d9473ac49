"""The phases of a run, and when everything that was fed is finished."""

from __future__ import annotations

import pytest

from antflow._backend.cancellation_watch import CancellationWatch
from antflow._state.lifecycle import Completion, EndReason, Lifecycle, Phase


def test_the_phase_only_advances() -> None:
    life = Lifecycle()
    for phase in (Phase.FEEDING, Phase.CANCELLING, Phase.DRAINING, Phase.FEEDING):
        life.advance(phase)
    assert life.phase is Phase.CANCELLING
    assert life.is_stopping
    assert not life.takes_input
    life.advance(Phase.ENDED)
    life.advance(Phase.CANCELLING, EndReason.CANCELLED)
    assert (life.phase, life.reason) == (Phase.ENDED, None)


@pytest.mark.parametrize(
    ("first", "second"), [(a, b) for a in EndReason for b in EndReason if a < b]
)
def test_of_two_reasons_for_one_phase_the_weightier_stays_in_any_order(
    first: EndReason, second: EndReason
) -> None:
    for reasons in ((first, second), (second, first)):
        life = Lifecycle()
        for reason in reasons:
            life.advance(Phase.CANCELLING, reason)
        assert life.reason is second


def test_the_weightiest_reason_stays() -> None:
    life = Lifecycle()
    life.advance(Phase.DRAINING, EndReason.SHUT_DOWN)
    life.advance(Phase.DRAINING, EndReason.FINISHED)
    assert life.reason is EndReason.SHUT_DOWN
    assert not life.was_cancelled
    life.advance(Phase.CANCELLING, EndReason.INTERRUPTED)
    life.advance(Phase.ENDED)
    assert life.reason is EndReason.INTERRUPTED
    assert life.was_cancelled


def test_a_cancellation_from_outside_has_no_reason_until_one_is_given() -> None:
    life = Lifecycle()
    life.stop()
    assert (life.phase, life.reason) == (Phase.CANCELLING, None)
    life.advance(Phase.CANCELLING, EndReason.TOO_MANY_FAILURES)
    assert life.reason is EndReason.TOO_MANY_FAILURES


async def test_a_run_ends_when_it_is_idle_after_finish_when_idle() -> None:
    life, watch = Lifecycle(), CancellationWatch()
    completion = Completion(life, watch)
    completion.expect_feed()
    completion.finish_when_idle()
    completion.is_open = True
    completion.admitted = 2
    completion.feeders = 1
    completion.pending_feeds = 0
    completion.settle()
    completion.settle()
    assert life.takes_input
    assert not completion.idle.is_set()
    completion.feeders = 0
    completion.check_idle()
    assert completion.idle.is_set()
    assert (life.phase, life.reason) == (Phase.DRAINING, EndReason.FINISHED)
    await watch.wait()
    assert not watch.triggered


async def test_an_idle_run_becomes_busy_when_a_feed_is_expected() -> None:
    completion = Completion(Lifecycle(), CancellationWatch())
    completion.is_open = True
    completion.check_idle()
    idle = completion.idle
    assert idle.is_set()
    completion.expect_feed()
    assert not completion.idle.is_set()
    completion.pending_feeds -= 1
    completion.check_idle()
    assert completion.idle.is_set()
