"""The phase of a run, why it ended, and when everything that was fed is finished."""

from __future__ import annotations

import enum

from anyio import Event
from attrs import define, field

from .._backend.cancellation_watch import CancellationWatch


class Phase(enum.IntEnum):
    """
    What a run is doing. The phases follow one another in this order; some may be skipped.

    A run that is shut down before its pools are built goes from ``OPENING`` to ``DRAINING``.
    """

    OPENING = 0
    """The pools are not built yet; calls of ``feed()`` wait for them."""
    FEEDING = 1
    """It takes input."""
    DRAINING = 2
    """It takes no more input, and finishes what was read."""
    CANCELLING = 3
    """No worker takes another item, and all loop tasks are cancelled or will be shortly."""
    ENDED = 4
    """No loop task of the run is left."""


class EndReason(enum.IntEnum):
    """Why a run takes no more input, or has ended: the weightier the later in this list."""

    FINISHED = 0
    """Everything that was fed is finished."""
    SHUT_DOWN = 1
    """``shutdown()`` was called."""
    CANCELLED = 2
    """``shutdown(drain=False)`` was called, or the block of a stream was left."""
    ERROR = 3
    """An error occurred that is not the failure of an item."""
    INTERRUPTED = 4
    """A second SIGINT or SIGTERM arrived."""
    TOO_MANY_FAILURES = 5
    """More items failed than ``max_failures`` allows."""


@define(eq=False)
class Lifecycle:
    """
    The phase of one run. It only advances.

    Attributes:
        phase: The current phase.
        reason: Why the run takes no more input, or why it was cancelled; None before, and if only a
            cancellation or an error from outside ended the run.
        is_stopping: Whether the phase is `Phase.CANCELLING` or later. Workers check this before
            each item, so it is an attribute and not a comparison.
    """

    phase: Phase = field(default=Phase.OPENING, init=False)
    reason: EndReason | None = field(default=None, init=False)
    is_stopping: bool = field(default=False, init=False)

    def advance(self, phase: Phase, reason: EndReason | None = None) -> None:
        """
        Advance to *phase*; no-op if the run is past it.

        Of several reasons the weightiest stays, in the order of `EndReason`.
        """
        if phase < self.phase:
            return
        self.phase = phase
        self.is_stopping = phase >= Phase.CANCELLING
        if reason is not None and (self.reason is None or reason > self.reason):
            self.reason = reason

    def stop(self) -> None:
        """Let no worker take another item, because the run is being cancelled."""
        self.advance(Phase.CANCELLING)

    @property
    def takes_input(self) -> bool:
        """Whether sources may still be read."""
        return self.phase < Phase.DRAINING

    @property
    def has_too_many_failures(self) -> bool:
        """Whether the run was stopped because of ``max_failures``."""
        return self.reason is EndReason.TOO_MANY_FAILURES

    @property
    def was_cancelled(self) -> bool:
        """Whether a call or a second signal cancelled the run."""
        return self.reason in (EndReason.CANCELLED, EndReason.INTERRUPTED)


@define(eq=False)
class Completion:
    """
    Counts what a run has to finish: items, sources that are read, and calls of ``feed()``.

    The run is idle while there are none of these. A run that is to end when it is idle then
    advances to `Phase.DRAINING`, and releases the watch: the loop task that waits there closes the
    first queue.

    Attributes:
        admitted: How many items were read.
        settled: Of those, how many are finished: their outcome is kept or handed over, and all
            callbacks and handlers have returned.
        feeders: How many sources are being read.
        cut_sources: How many sources were not read to their end, and were not stopped either.
        pending_feeds: How many calls of ``feed()`` wait for the pools.
        is_open: Whether the pools have been built, and the run has not ended.
        ends_when_idle: Whether the run is to end as soon as it is idle.
        idle: Set while the run is idle, and once it has ended. A call of ``feed()`` to an idle run
            replaces it with a new one.
    """

    _lifecycle: Lifecycle
    _watch: CancellationWatch
    admitted: int = field(default=0, init=False)
    settled: int = field(default=0, init=False)
    feeders: int = field(default=0, init=False)
    pending_feeds: int = field(default=0, init=False)
    cut_sources: int = field(default=0, init=False)
    is_open: bool = field(default=False, init=False)
    ends_when_idle: bool = field(default=False, init=False)
    idle: Event = field(factory=Event, init=False)

    @property
    def unfinished(self) -> int:
        """How many items were admitted and are not settled."""
        return self.admitted - self.settled

    @property
    def is_cut_short(self) -> bool:
        """Whether items were not settled, or a source was not read to its end or to `stop()`."""
        return self.unfinished > 0 or self.cut_sources > 0

    def settle(self) -> None:
        """Mark an item finished."""
        self.settled = settled = self.settled + 1
        if settled == self.admitted:
            self.check_idle()

    def check_idle(self) -> None:
        """Check whether the run is idle; to be called whenever it may have become idle."""
        if not self.is_open or self.unfinished or self.feeders or self.pending_feeds:
            return
        self.idle.set()
        if self.ends_when_idle:
            self._lifecycle.advance(Phase.DRAINING, EndReason.FINISHED)
            self._watch.release()

    def finish_when_idle(self) -> None:
        """Let the run end as soon as it is idle."""
        self.ends_when_idle = True
        self.check_idle()

    def expect_feed(self) -> None:
        """Count a call of ``feed()`` before its first await, so that ``join()`` waits for it."""
        self.pending_feeds += 1
        if self.is_open and self.idle.is_set():
            self.idle = Event()

    def close(self) -> None:
        """Note that the run has ended: nothing will be settled any more."""
        self.is_open = False
        self.idle.set()
