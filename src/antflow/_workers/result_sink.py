"""Where the results of a stream wait for the one who iterates over it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable

from anyio import Event

from .._model.items import PipelineResult


class ResultSink:
    """
    A bounded queue of results, in order of arrival or of input.

    It is no memory object stream because a consumer whose wait is ended, by whatever means, must
    never lose a result: it waits first, and then takes one with no await in between. (A native
    cancellation on asyncio may end `receive()` when the item is already in its hands.)

    Args:
        room: How many results may wait; one who brings more waits until no more than these are
            left.
        window: In input order, with at most this many items between the source and the consumer;
            None for order of arrival.

    Attributes:
        room: As given.
        window: As given.
    """

    def __init__(self, room: float, window: int | None) -> None:
        self.room = room
        self.window = window
        self._ready: deque[PipelineResult] = deque()
        # How many were taken so far, and how many items let into the window.
        self._taken = 0
        self._entered = 0
        # For each who waits for room: the number of the last result that he made ready, from 1, and
        # what wakes him once no more up to that one are left than there is room for.
        self._bringers: deque[tuple[int, Event]] = deque()
        # By sequence number, what came before its turn: never more than the window.
        self._early: dict[int, PipelineResult] = {}
        self._next = 0
        # Set for those who wait for a result, if anybody does.
        self._arrived: Event | None = None
        # Set for the one who waits for a place in the window, if he does.
        self._left: Event | None = None

    def enter(self) -> bool:
        """Let one more item into the window, if there is a place; say whether there was."""
        assert self.window is not None
        if self._entered - self._taken >= self.window:
            return False
        self._entered += 1
        return True

    async def wait_to_enter(self) -> None:
        """
        Let one more item into the window as soon as there is a place.

        One may wait at a time: a stream has one source.
        """
        while not self.enter():
            self._left = Event()
            await self._left.wait()

    def put(self, result: PipelineResult) -> Awaitable[None] | None:
        """
        Bring *result*.

        Returns:
            None if there is room for all that is ready, or it is not the turn of *result* yet; else
            what must be awaited until there is.
        """
        if self.window is None:
            self._ready.append(result)
        elif result.sequence_id == self._next:
            self._ready.append(result)
            self._next += 1
            # Who brought these went on at once: it is for him who completes the order to wait.
            while self._next in self._early:
                self._ready.append(self._early.pop(self._next))
                self._next += 1
        else:
            self._early[result.sequence_id] = result
            return None
        self.wake()
        if len(self._ready) <= self.room:
            return None
        unblocked = Event()
        self._bringers.append((self._taken + len(self._ready), unblocked))
        return unblocked.wait()

    def take(self) -> PipelineResult | None:
        """Return the next result, or None if none is there."""
        if not self._ready:
            return None
        self._taken += 1
        if self._bringers and self._bringers[0][0] - self._taken <= self.room:
            _, unblocked = self._bringers.popleft()
            unblocked.set()
        if self._left is not None:
            self._left.set()
            self._left = None
        return self._ready.popleft()

    async def wait(self) -> None:
        """Wait until there may be a result, or the run has ended."""
        if self._arrived is None:
            self._arrived = Event()
        await self._arrived.wait()

    def wake(self) -> None:
        """Let those who wait look again."""
        if self._arrived is not None:
            self._arrived.set()
            self._arrived = None
