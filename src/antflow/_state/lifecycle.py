"""The life of a run: its phases, why it ended, and when everything that was fed is finished."""

from __future__ import annotations

import enum

from anyio import Event
from attrs import define, field

from .._backend.cancellation_watch import CancellationWatch


class Phase(enum.IntEnum):
    """
    What a run is doing. The phases follow one another in this order; some may be left out.

    A run that is shut down before its pools are there goes from ``OPENING`` to ``DRAINING``.
    """

    OPENING = 0
    """The pools are not there yet; calls of ``feed()`` wait for them."""
    FEEDING = 1
    """It takes input."""
    DRAINING = 2
    """It takes no more input, and finishes what was read."""
    CANCELLING = 3
    """No worker takes another item, and all loop tasks are being cancelled."""
    ENDED = 4
    """Nothing of it runs any more."""


class EndReason(enum.Enum):
    """Why a run takes no more input, or has ended."""

    FINISHED = "everything that was fed is finished"
    SHUT_DOWN = "shutdown() was called"
    CANCELLED = "shutdown(drain=False) was called, or the block of a stream was left"
    INTERRUPTED = "a second SIGINT or SIGTERM arrived"
    TOO_MANY_FAILURES = "more items failed than max_failures allows"


@define(eq=False)
class Lifecycle:
    """
    The phase of one run. It only advances.

    Attributes:
        phase: The present one.
        reason: Why the run left `Phase.FEEDING`; None before, and if it was cancelled from outside.
        is_stopping: Whether the phase is `Phase.CANCELLING` or later. Workers look at this before
            each item, so it is an attribute and not a comparison.
    """

    phase: Phase = field(default=Phase.OPENING, init=False)
    reason: EndReason | None = field(default=None, init=False)
    is_stopping: bool = field(default=False, init=False)

    def advance(self, phase: Phase, reason: EndReason | None = None) -> None:
        """Go on to *phase*; no-op if the run is past it. A later phase overrides the reason."""
        if phase > self.phase:
            self.phase = phase
            self.is_stopping = phase >= Phase.CANCELLING
            self.reason = reason or self.reason
        elif phase == self.phase:
            self.reason = self.reason or reason

    def stop(self) -> None:
        """Let no worker take another item, because the run is being cancelled from outside."""
        self.advance(Phase.CANCELLING)

    @property
    def takes_input(self) -> bool:
        """Whether what is fed is still read."""
        return self.phase < Phase.DRAINING

    @property
    def has_too_many_failures(self) -> bool:
        """Whether the run was stopped because of ``max_failures``."""
        return self.reason is EndReason.TOO_MANY_FAILURES

    @property
    def was_cancelled(self) -> bool:
        """Whether the run was ended at once, by a call or a signal."""
        return self.reason in (EndReason.CANCELLED, EndReason.INTERRUPTED)


@define(eq=False)
class Completion:
    """
    Counts what a run has to finish: items, sources that are read, and calls of ``feed()``.

    The run is idle while there is none of these. One that is to end when it is idle then advances
    to `Phase.DRAINING`, and releases the watch: the loop task that waits there closes the queues.

    Attributes:
        admitted: How many items were read.
        settled: Of those, how many are finished: their outcome is kept or handed over, and all
            callbacks and handlers have returned.
        feeders: How many sources are being read.
        pending_feeds: How many calls of ``feed()`` wait for the pools.
        is_open: Whether the pools are there, and the run has not ended.
        ends_when_idle: Whether the run is to end as soon as it is idle.
        idle: Set while the run is idle; replaced by a new one each time that it becomes busy.
    """

    _lifecycle: Lifecycle
    _watch: CancellationWatch
    admitted: int = field(default=0, init=False)
    settled: int = field(default=0, init=False)
    feeders: int = field(default=0, init=False)
    pending_feeds: int = field(default=0, init=False)
    is_open: bool = field(default=False, init=False)
    ends_when_idle: bool = field(default=False, init=False)
    idle: Event = field(factory=Event, init=False)

    @property
    def unfinished(self) -> int:
        """How many items were admitted and are not settled."""
        return self.admitted - self.settled

    def settle(self) -> None:
        """Mark an item finished."""
        self.settled = settled = self.settled + 1
        if settled == self.admitted:
            self.check()

    def check(self) -> None:
        """See whether the run is idle: called whenever that may have become true."""
        if not self.is_open or self.unfinished or self.feeders or self.pending_feeds:
            return
        self.idle.set()
        if self.ends_when_idle:
            self._lifecycle.advance(Phase.DRAINING, EndReason.FINISHED)
            self._watch.release()

    def finish_when_idle(self) -> None:
        """Let the run end as soon as it is idle."""
        self.ends_when_idle = True
        self.check()

    def expect_feed(self) -> None:
        """Count a call of ``feed()`` before its first await, so that ``join()`` waits for it."""
        self.pending_feeds += 1
        if self.is_open and self.idle.is_set():
            self.idle = Event()

    def close(self) -> None:
        """The run has ended: nothing will be settled any more."""
        self.is_open = False
        self.idle.set()
