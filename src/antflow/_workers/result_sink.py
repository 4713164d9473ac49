"""`ResultSink`: results that wait for the consumer of a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable

from anyio import Event

from .._model.results import PipelineResult


class ResultSink:
    """
    A bounded queue of results, in order of arrival or in input order.

    It is not a memory object stream, because a consumer must never lose a result when its wait is
    cancelled, in whatever way. So it waits first, and then takes a result without an await in
    between. (On asyncio, a native cancellation may end `receive()` of a memory object stream when
    it already has the item.)

    Args:
        room: How many results may wait. A producer that adds another one waits until no more than
            this many are left.
        window: For input order, how many items may be between the source and the consumer; None for
            order of arrival.

    Attributes:
        room: As given.
        window: As given.
    """

    def __init__(self, room: float, window: int | None) -> None:
        self.room = room
        self.window = window
        self._ready: deque[PipelineResult] = deque()
        # How many results were taken so far, and how many items were let into the window.
        self._taken = 0
        self._entered = 0
        # Per blocked producer: the number of its last result, counted from 1, and the event that
        # resumes it. Results up to that number count; no more than `room` of them may be left.
        self._blocked_producers: deque[tuple[int, Event]] = deque()
        # By sequence number, results that must wait for earlier ones: fewer than the window.
        self._out_of_order: dict[int, PipelineResult] = {}
        # The sequence number of the result that is next in input order.
        self._next_sequence_id = 0
        # Set when a result arrives, if a consumer waits.
        self._arrived: Event | None = None
        # Set when the window has room, if a feeder waits.
        self._window_freed: Event | None = None

    def enter(self) -> bool:
        """Let one more item into the window if there is room; return whether there was."""
        assert self.window is not None
        if self._entered - self._taken >= self.window:
            return False
        self._entered += 1
        return True

    def leave(self) -> None:
        """Take back an `enter()` that no item followed."""
        self._entered -= 1
        self.wake_feeders()

    def enter_anyway(self) -> None:
        """Let one more item into the window, beyond its bound if there is no room."""
        self._entered += 1

    async def wait_for_window(self) -> None:
        """Wait until the window may have room, or `wake_feeders()`."""
        if self._window_freed is None:
            self._window_freed = Event()
        await self._window_freed.wait()

    def wake_feeders(self) -> None:
        """Wake waiting feeders."""
        if self._window_freed is not None:
            self._window_freed.set()
            self._window_freed = None

    def put(self, result: PipelineResult) -> Awaitable[None] | None:
        """
        Add *result*.

        Returns:
            None if there is room, or if *result* must wait for earlier ones; else an awaitable that
            waits until there is room.
        """
        if self.window is None:
            self._ready.append(result)
        elif result.sequence_id == self._next_sequence_id:
            self._ready.append(result)
            self._next_sequence_id += 1
            # The producers of these did not wait: the one that fills the gap waits in their place.
            while self._next_sequence_id in self._out_of_order:
                self._ready.append(self._out_of_order.pop(self._next_sequence_id))
                self._next_sequence_id += 1
        else:
            self._out_of_order[result.sequence_id] = result
            return None
        self.wake()
        if len(self._ready) <= self.room:
            return None
        resumed = Event()
        self._blocked_producers.append((self._taken + len(self._ready), resumed))
        return resumed.wait()

    def take(self) -> PipelineResult | None:
        """Remove and return the next result, or return None if there is none yet."""
        if not self._ready:
            return None
        self._taken += 1
        if self._blocked_producers and self._blocked_producers[0][0] - self._taken <= self.room:
            _, resumed = self._blocked_producers.popleft()
            resumed.set()
        if self._window_freed is not None:
            self.wake_feeders()
        return self._ready.popleft()

    async def wait(self) -> None:
        """Wait until there may be a result, or the run has ended."""
        if self._arrived is None:
            self._arrived = Event()
        await self._arrived.wait()

    def wake(self) -> None:
        """Wake waiting consumers."""
        if self._arrived is not None:
            self._arrived.set()
            self._arrived = None
