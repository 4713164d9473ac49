"""How items get into a stage: through a bounded stream, or to a place that they keep."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import Protocol

from anyio import CapacityLimiter, create_memory_object_stream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from ._items import Record
from ._stage import Stage


class Entrance(Protocol):
    """What the one before a stage sends its items to; an anyio send stream is one."""

    def send_nowait(self, item: Record, /) -> None:
        """Hand *item* over, or raise `anyio.WouldBlock` if there is no room."""

    def send(self, item: Record, /) -> Awaitable[None]:
        """Hand *item* over, waiting for room."""
        ...

    def close(self) -> None:
        """Say that nothing more will come."""


class Places:
    """
    The entrance of a stage that takes its items back (per-stage retry).

    An item keeps its place from its arrival until it leaves the stage for good, also while it
    backs off, and there are ``workers + capacity`` places. So an item that comes back always
    finds room: it never waits while a worker holds it, and never blocks the way for the others;
    and a stage whose every item fails holds no more items than any other stage.

    The end of the stream cannot overtake an item that may come back: after `close()` the stream is
    closed once the last place is free.
    """

    __slots__ = ("_closed", "_limiter", "_stream")

    def __init__(self, stream: MemoryObjectSendStream[Record], places: int | float) -> None:
        self._stream = stream
        self._limiter = CapacityLimiter(places)
        self._closed = False

    def send_nowait(self, item: Record, /) -> None:
        """Give *item* a place, or raise `anyio.WouldBlock` if there is none."""
        self._limiter.acquire_on_behalf_of_nowait(item)
        self._stream.send_nowait(item)

    async def send(self, item: Record, /) -> None:
        """Give *item* a place, waiting for one."""
        await self._limiter.acquire_on_behalf_of(item)
        self._stream.send_nowait(item)

    def take_back(self, item: Record) -> None:
        """Queue *item* again, at the place that it kept."""
        self._stream.send_nowait(item)

    def release(self, item: Record) -> None:
        """Free the place of *item*."""
        self._limiter.release_on_behalf_of(item)
        self._close_when_empty()

    def close(self) -> None:
        """Say that nothing new will come."""
        self._closed = True
        self._close_when_empty()

    def _close_when_empty(self) -> None:
        if self._closed and not self._limiter.borrowed_tokens:
            self._stream.close()


def open_entrance(
    stage: Stage,
) -> tuple[
    MemoryObjectSendStream[Record], MemoryObjectReceiveStream[Record], Entrance, Places | None
]:
    """Return both ends of the stream into *stage*, its entrance, and its places if it has some."""
    if stage.retry_policy.scope == "task":
        send, receive = create_memory_object_stream[Record](stage.capacity)
        return send, receive, send, None
    # Bounded by the places.
    send, receive = create_memory_object_stream[Record](math.inf)
    places = Places(send, stage.workers + stage.capacity)
    return send, receive, places, places
