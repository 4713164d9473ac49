"""How items get into a stage: through a bounded stream, to a place that they keep, by urgency."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import Any, Protocol

from anyio import CapacityLimiter, create_memory_object_stream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .._definition.stage import Stage
from .._model.items import Record
from .priority_heap import PriorityHeap, Ticket


class Inlet(Protocol):
    """What the one before a stage sends its items to; an anyio send stream is one."""

    def send_nowait(self, item: Any, /) -> None:
        """Hand *item* over, or raise `anyio.WouldBlock` if there is no room."""

    def send(self, item: Any, /) -> Awaitable[None]:
        """Hand *item* over, waiting for room."""
        ...

    def close(self) -> None:
        """Say that nothing more will come."""


class SlotQueue:
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

    def __init__(self, stream: MemoryObjectSendStream[Any], places: int | float) -> None:
        self._stream = stream
        self._limiter = CapacityLimiter(places)
        self._closed = False

    def send_nowait(self, item: Record | Ticket, /) -> None:
        """Give *item* a place, or raise `anyio.WouldBlock` if there is none."""
        self._limiter.acquire_on_behalf_of_nowait(item)
        self._stream.send_nowait(item)

    async def send(self, item: Record | Ticket, /) -> None:
        """Give *item* a place, waiting for one."""
        await self._limiter.acquire_on_behalf_of(item)
        self._stream.send_nowait(item)

    def requeue(self, item: Record | Ticket) -> None:
        """Queue *item* again, at the place that it kept."""
        self._stream.send_nowait(item)

    def place_of(self, record: Record) -> object:
        """Return the place of *record*, to be released once the record may be elsewhere already."""
        place, record.place = record.place, None
        return record if place is None else place

    def release(self, place: object) -> None:
        """Free *place*."""
        self._limiter.release_on_behalf_of(place)
        self._close_when_empty()

    def close(self) -> None:
        """Say that nothing new will come."""
        self._closed = True
        self._close_when_empty()

    def _close_when_empty(self) -> None:
        if self._closed and not self._limiter.borrowed_tokens:
            self._stream.close()


class PriorityInlet:
    """An entrance before which records stand in a `Line`: only their tickets go through it."""

    __slots__ = ("_entrance", "_line")

    def __init__(self, entrance: Inlet, line: PriorityHeap) -> None:
        self._entrance = entrance
        self._line = line

    def send_nowait(self, record: Record, /) -> None:
        """Hand *record* over, or raise `anyio.WouldBlock` if there is no room."""
        self._entrance.send_nowait(Ticket())
        # Still before whoever got the ticket can run.
        self._line.join(record)

    async def send(self, record: Record, /) -> None:
        """Hand *record* over, waiting for room; it may be taken before its turn to wait is over."""
        self._line.join(record)
        await self._entrance.send(Ticket())

    def close(self) -> None:
        """Say that nothing new will come."""
        self._entrance.close()


def open_queue(
    stage: Stage,
) -> tuple[MemoryObjectSendStream[Any], MemoryObjectReceiveStream[Any], Inlet, SlotQueue | None]:
    """Return both ends of the stream into *stage*, its entrance, and its places if it has some."""
    if stage.retry_policy.scope == "task":
        send, receive = create_memory_object_stream[Any](stage.capacity)
        return send, receive, send, None
    # Bounded by the places.
    send, receive = create_memory_object_stream[Any](math.inf)
    places = SlotQueue(send, stage.workers + stage.capacity)
    return send, receive, places, places
