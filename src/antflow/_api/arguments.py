"""Checks of the arguments of `Pipeline`, in the form of attrs validators."""

from __future__ import annotations

from typing import Any

from .._definition.validation import check_flag, check_int, check_number, reject_argument
from .._events.status_tracker import StatusTracker


def check_collect_results(pipeline: object, attribute: Any, flag: object) -> None:
    """Reject *flag* unless it is True or False."""
    if not isinstance(flag, bool):
        hint = "Write status_tracker=…." if isinstance(flag, StatusTracker) else None
        reject_argument("Pipeline", "collect_results", "True or False", flag, hint)


def check_tracker(pipeline: object, attribute: Any, tracker: object) -> None:
    """Reject *tracker* unless it is a `StatusTracker` or None."""
    if tracker is not None and not isinstance(tracker, StatusTracker):
        hint = "Write status_tracker=StatusTracker()." if tracker is StatusTracker else None
        reject_argument("Pipeline", "status_tracker", "a StatusTracker or None", tracker, hint)


def check_keep_failures(pipeline: object, attribute: Any, count: int | None) -> None:
    """Reject *count* unless it is None or an int of at least 0."""
    if count is not None:
        check_int("Pipeline", "keep_failures", count, at_least=0)


def check_keep_frames(pipeline: object, attribute: Any, flag: object) -> None:
    """Reject *flag* unless it is True or False."""
    check_flag("Pipeline", "keep_frames", flag)


def check_slow(pipeline: object, attribute: Any, seconds: float | None) -> None:
    """Reject *seconds* unless it is None or a number above 0."""
    if seconds is not None:
        check_number("Pipeline", "slow_callback_duration", seconds, at_least=0, above=True)


def check_signals(pipeline: object, attribute: Any, flag: object) -> None:
    """Reject *flag* unless it is True or False."""
    check_flag("Pipeline", "handle_signals", flag)


def check_grace(pipeline: object, attribute: Any, seconds: float | None) -> None:
    """Reject *seconds* unless it is None or a number of at least 0."""
    if seconds is not None:
        check_number("Pipeline", "cancel_grace", seconds, at_least=0)
