"""The bounded queue in front of a stage, with slots for per-stage retry, and with priorities."""

from __future__ import annotations

import heapq
import math
import sys
from collections.abc import Awaitable
from itertools import count
from typing import Any, Protocol

from anyio import CapacityLimiter, create_memory_object_stream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field

from .._definition.stage import Stage
from .._model.record import Record


class Inlet(Protocol):
    """Where items enter the queue of a stage; an anyio send stream is one."""

    def send_nowait(self, item: Any, /) -> None:
        """Put *item* into the queue, or raise `anyio.WouldBlock` if there is no room."""

    def send(self, item: Any, /) -> Awaitable[None]:
        """Put *item* into the queue, waiting for room."""
        ...

    def close(self) -> None:
        """Announce that nothing more will be sent."""


class Ticket:
    """
    A placeholder that the queue carries in place of a record, once priorities are in use.

    Attributes:
        slot: The object that holds the slot of this ticket in a `SlotQueue`.
    """

    __slots__ = ("slot",)

    def __init__(self, slot: object = None) -> None:
        self.slot = self if slot is None else slot


class SlotQueue:
    """
    The inlet of a stage with per-stage retry.

    An item keeps its slot from its arrival until it leaves the stage for good, back-off included,
    and there are ``workers + capacity`` slots. So an item that is requeued always has room and
    never waits for it, and a stage in which every item fails holds no more items than any other.

    The queue is not closed before an item that may come back: after `close()`, it is closed once
    the last slot is free.
    """

    __slots__ = ("_closed", "_limiter", "_stream")

    def __init__(self, stream: MemoryObjectSendStream[Any], slots: int | float) -> None:
        self._stream = stream
        self._limiter = CapacityLimiter(slots)
        self._closed = False

    def send_nowait(self, item: Record | Ticket, /) -> None:
        """Give *item* a slot and queue it, or raise `anyio.WouldBlock` if no slot is free."""
        self._limiter.acquire_on_behalf_of_nowait(item)
        self._stream.send_nowait(item)

    async def send(self, item: Record | Ticket, /) -> None:
        """Give *item* a slot, waiting for a free one, and queue it."""
        await self._limiter.acquire_on_behalf_of(item)
        self._stream.send_nowait(item)

    def requeue(self, item: Record | Ticket) -> None:
        """Queue *item* again, in the slot that it kept."""
        self._stream.send_nowait(item)

    def take_slot(self, record: Record) -> object:
        """Detach its slot from *record*, and return the object that holds it, for `release()`."""
        slot, record.slot = record.slot, None
        return record if slot is None else slot

    def release(self, slot: object) -> None:
        """Free the slot that *slot* holds."""
        self._limiter.release_on_behalf_of(slot)
        self._close_when_empty()

    def close(self) -> None:
        """Announce that nothing new will be sent."""
        self._closed = True
        self._close_when_empty()

    def _close_when_empty(self) -> None:
        if self._closed and not self._limiter.borrowed_tokens:
            self._stream.close()


class PriorityHeap:
    """
    The records that wait for one stage: lowest priority first, equal ones in order of arrival.

    Invariant: for each record in the heap, a ticket is in the queue, or held by a sender that waits
    for room. So the queue remains bounded. A ticket says only that *some* record may start: the one
    with the lowest priority at that moment, even if its own sender still waits for room.
    """

    __slots__ = ("_arrivals", "_earlier_arrivals", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Record]] = []
        self._arrivals = count()
        # Records that were sent before there was a heap come before all others.
        self._earlier_arrivals = count(-sys.maxsize)

    def push(self, record: Record) -> None:
        """Add *record*; the caller sends a ticket for it."""
        heapq.heappush(self._heap, (record.priority, next(self._arrivals), record))

    def pop(self, received: Any) -> Record:
        """
        Return the record that starts next.

        Args:
            received: What the queue delivered: a ticket, or a record that was sent before there was
                a heap. Such a record is added to the heap first.
        """
        slot = received.slot
        if isinstance(received, Record):
            slot = received if slot is None else slot
            arrival = next(self._earlier_arrivals)
            heapq.heappush(self._heap, (received.priority, arrival, received))
        record = heapq.heappop(self._heap)[2]
        record.slot = slot
        return record


class PriorityInlet:
    """An inlet that puts records into a `PriorityHeap`, and their tickets into the queue."""

    __slots__ = ("_heap", "_inlet")

    def __init__(self, inlet: Inlet, heap: PriorityHeap) -> None:
        self._inlet = inlet
        self._heap = heap

    def send_nowait(self, record: Record, /) -> None:
        """Add *record*, or raise `anyio.WouldBlock` if there is no room."""
        self._inlet.send_nowait(Ticket())
        # Before the worker that receives the ticket can run.
        self._heap.push(record)

    async def send(self, record: Record, /) -> None:
        """Add *record*, waiting for room; a worker may take it before this returns."""
        self._heap.push(record)
        await self._inlet.send(Ticket())

    def close(self) -> None:
        """Announce that nothing new will be sent."""
        self._inlet.close()


@define(eq=False)
class StageQueue:
    """
    The queue before one stage.

    Attributes:
        sender: The send end of the memory object stream behind `inlet`.
        receiver: Its receive end.
        inlet: Where items are sent to.
        slots: The inlet with slots, if the stage has per-stage retry.
        max_queued: How many items there can be, in the queue and with senders that wait for room.
        heap: The records that wait, once priorities are in use; None before.
    """

    sender: MemoryObjectSendStream[Any]
    receiver: MemoryObjectReceiveStream[Any]
    inlet: Inlet
    slots: SlotQueue | None
    max_queued: float
    heap: PriorityHeap | None = field(default=None, init=False)

    @property
    def waiting(self) -> int:
        """How many items wait for a worker, those of waiting senders included."""
        statistics = self.receiver.statistics()
        return statistics.current_buffer_used + statistics.tasks_waiting_send

    def use_priorities(self) -> None:
        """From now on, let the item with the lowest priority start first."""
        if self.heap is None:
            self.heap = PriorityHeap()
            self.inlet = PriorityInlet(self.inlet, self.heap)

    def requeue(self, record: Record) -> None:
        """Queue *record* again, in the slot that it kept."""
        assert self.slots is not None  # a stage with per-stage retry has slots
        if self.heap is None:
            self.slots.requeue(record)
        else:
            self.heap.push(record)
            self.slots.requeue(Ticket(record if record.slot is None else record.slot))

    def close(self) -> None:
        """Close both ends; nothing may use them any more."""
        self.sender.close()
        self.receiver.close()


def open_queue(stage: Stage) -> StageQueue:
    """Return the queue of *stage*."""
    if stage.retry_policy.scope == "task":
        sender, receiver = create_memory_object_stream[Any](stage.capacity)
        return StageQueue(sender, receiver, sender, None, stage.capacity)
    # Unbounded, because the slots bound it.
    sender, receiver = create_memory_object_stream[Any](math.inf)
    total = stage.workers + stage.capacity
    slots = SlotQueue(sender, total)
    return StageQueue(sender, receiver, slots, slots, total)
