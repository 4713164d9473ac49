"""The results of a stream that wait for its consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable

from anyio import Event

from .._model.results import PipelineResult


class ResultSink:
    """
    A bounded queue of results, in order of arrival or of input.

    It is not a memory object stream, because a consumer whose wait is cancelled, by whatever means,
    must never lose a result: it waits first, and then takes one without an await in between. (A
    native cancellation on asyncio may end `receive()` when it has the item already.)

    Args:
        room: How many results may wait. A producer that adds more waits until no more than these
            are left.
        window: In order of input, how many items may be between the source and the consumer; None
            for order of arrival.

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
        # Per blocked producer: the number of its last result, from 1, and the event that resumes it
        # once no more results up to that one are left than there is room for.
        self._producers: deque[tuple[int, Event]] = deque()
        # By sequence number, results that cannot be given yet: never more than the window.
        self._out_of_order: dict[int, PipelineResult] = {}
        self._next = 0
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
            None if there is room, or if *result* cannot be given yet; else an awaitable that waits
            until there is.
        """
        if self.window is None:
            self._ready.append(result)
        elif result.sequence_id == self._next:
            self._ready.append(result)
            self._next += 1
            # The producers of these did not wait: the one that fills the gap waits for them.
            while self._next in self._out_of_order:
                self._ready.append(self._out_of_order.pop(self._next))
                self._next += 1
        else:
            self._out_of_order[result.sequence_id] = result
            return None
        self.wake()
        if len(self._ready) <= self.room:
            return None
        resumed = Event()
        self._producers.append((self._taken + len(self._ready), resumed))
        return resumed.wait()

    def take(self) -> PipelineResult | None:
        """Return the next result, or None if there is none yet."""
        if not self._ready:
            return None
        self._taken += 1
        if self._producers and self._producers[0][0] - self._taken <= self.room:
            _, resumed = self._producers.popleft()
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
