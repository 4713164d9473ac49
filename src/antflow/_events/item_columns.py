"""
The items of a `StatusTracker`: their ids, their present status, and their events.

Theory of operation
===================

A million items through three stages have nine million events. As objects, these would take more
than a kilobyte per item, and the garbage collector would traverse them again and again. So they are
packed into columns, and made when they are asked for.

An item has a slot: the index of its id, its status and its newest event in three columns. The slot
is found by the id, in a dict. The column of statuses has one byte per item, so a search for a
status is a search for a byte. What most events lack (metadata, a failure) is in dicts. The slots of
forgotten items are used again.

One thread writes. Others may read at any time: they find nothing half-written. But if an item
changes while it is read, it is read again, a few times at most.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, get_args

from .._model.events import Status
from .._model.record import Record
from .._model.results import FailedItem
from .event_columns import NO_EVENT, AllEvents, LastEvents, LatestEvents

STATUSES: tuple[Status, ...] = get_args(Status)
CODES: dict[Status, int] = {status: code for code, status in enumerate(STATUSES)}
# The code of a slot without an event. Such slots are counted like the others.
_NO_STATUS = len(STATUSES)
# An event's code is the number of its place times this, plus the code of its status.
PLACE = 8
# The id in a slot that is free: no item has it.
_NO_ID = object()


class ItemColumns:
    """
    The items of a tracker, as they are written; `TrackedItems` reads them.

    Args:
        length: How many events of each item are kept; None for all.
        on_error: Called with what `keep()` raises, because of an id that raises.
    """

    def __init__(self, length: int | None, on_error: Callable[[BaseException], None]) -> None:
        self._length = length
        self._on_error = on_error
        self._forgotten = 0
        self.clear()

    def clear(self) -> None:
        """Forget all items."""
        # All of these are new, because another thread may be reading the old ones.
        # By the key of its id, the slot of an item.
        self._slots: dict[Any, int] = {}
        # By slot.
        self._ids: list[Any] = []
        self._statuses = bytearray()
        self._events = _columns(self._length)
        # Set as long as each event is appended.
        self._appended = self._events if isinstance(self._events, AllEvents) else None
        self._newest = self._events.newest
        # By slot: the metadata of the item at its first event.
        self._metadata: dict[int, dict[str, Any]] = {}
        # By index of the event, if they are not what the slot says: the metadata of the item,
        # further metadata, and the failure.
        self._details: dict[
            int, tuple[dict[str, Any] | None, dict[str, Any] | None, FailedItem | None]
        ] = {}
        # Whether an event may have such details, or be where another had some.
        self._has_details = False
        # Pairs of stage and worker; and their numbers times `PLACE`, by the name of the
        # stage if there is no worker, else by that of the worker.
        self._places: list[tuple[str, str | None]] = []
        self._queues: dict[str, int] = {}
        self._workers: dict[str | tuple[str, str], int] = {}
        self._free_slots: list[int] = []
        # How often something was forgotten, so that other threads notice it.
        self._forgotten += 1
        # By slot, the running number of its item: from the first forgotten item on.
        self._numbers: array[int] | None = None
        self._next_number = 0
        self._counts = [0] * (_NO_STATUS + 1)

    def keep(
        self,
        bus: Any,
        status: Status,
        record: Record,
        stage: str,
        worker: str | tuple[str, str] | None,
        timestamp: float,
        details: dict[str, Any] | None = None,
        failed: FailedItem | None = None,
    ) -> None:
        """
        Keep one event; with the arguments of `publish()`, in place of which it is called.

        Args:
            bus: Not used.
            status: The new status.
            record: The item. Its metadata is not copied.
            stage: The name of the stage.
            worker: The name of the worker, if there is one; together with that of the stage if it
                may belong to another.
            timestamp: Unix seconds.
            details: Metadata of this event, beside that of the item.
            failed: The failure, for ``failed``.
        """
        try:
            code = CODES[status]
            place = self._queues.get(stage) if worker is None else self._workers.get(worker)
            if place is None:
                place = self._add_place(stage, worker)
            # A record remembers its slot, because a lookup by id costs more. If the slot is another
            # item's meanwhile, it has another id.
            slot, ids = record.entry, self._ids
            if slot is None or slot >= len(ids) or ids[slot] is not record.id:
                slot = record.entry = self._find_or_add(record.id)
            newest, columns = self._newest, self._appended
            if columns is not None:
                # As `AllEvents.add()` does.
                codes = columns.codes
                index = len(codes)
                columns.timestamps.append(timestamp)
                columns.links.append(newest[slot])
                codes.append(place + code)
            else:
                index = self._events.add(slot, timestamp, place + code)
            if self._has_details or record.metadata is not None or details is not None:
                self._keep_details(slot, index, record.metadata, details, failed)
            newest[slot] = index
            # In this order, no other thread finds a negative count.
            counts, statuses = self._counts, self._statuses
            counts[code] += 1
            counts[statuses[slot]] -= 1
            statuses[slot] = code
        except BaseException as error:
            self._on_error(error)

    def _find_or_add(self, item_id: Any) -> int:
        key = item_id
        try:
            slot = self._slots.get(key)
        except Exception:
            # It cannot be hashed, or raises when it is compared with the others.
            key = key_of(item_id)
            slot = self._slots.get(key)
        return self._add(key, item_id) if slot is None else slot

    def _add_place(self, stage: str, worker: str | tuple[str, str] | None) -> int:
        number = len(self._places) * PLACE
        if worker is None:
            self._places.append((stage, None))
            self._queues[stage] = number
        else:
            self._places.append(worker if isinstance(worker, tuple) else (stage, worker))
            self._workers[worker] = number
        return number

    def _add(self, key: Any, item_id: Any) -> int:
        """Give a slot to a new item."""
        if self._free_slots:
            slot = self._free_slots.pop()
            self._ids[slot] = item_id
        else:
            slot = len(self._ids)
            if type(item_id) is int and item_id == slot:
                # The same object, because most ids are running numbers.
                slot = item_id
            self._ids.append(item_id)
            self._statuses.append(_NO_STATUS)
            self._events.add_slot()
            if self._numbers is not None:
                self._numbers.append(0)
        if self._numbers is not None:
            self._numbers[slot] = self._next_number
            self._next_number += 1
        self._slots[key] = slot
        return slot

    def _keep_details(
        self,
        slot: int,
        index: int,
        metadata: dict[str, Any] | None,
        details: dict[str, Any] | None,
        failed: FailedItem | None,
    ) -> None:
        self._has_details = True
        if metadata is not None and self._newest[slot] == NO_EVENT:
            self._metadata[slot] = metadata
        if details is None and failed is None and metadata is self._metadata.get(slot):
            self._details.pop(index, None)
        else:
            self._details[index] = (metadata, details, failed)

    def forget(self, slot: int) -> bool:
        """Forget the item in *slot*; return False if its id has changed and is not found."""
        key = key_of(self._ids[slot])
        try:
            if self._slots.get(key) != slot:
                return False
            del self._slots[key]
        except Exception:
            # It raises when it is compared with the others.
            return False
        if self._numbers is None:
            self._numbers = array("Q", range(len(self._ids)))
            self._next_number = len(self._ids)
        # First: what another thread reads from now on may be another item's.
        self._forgotten += 1
        if self._details:
            for index in self._events.indices(slot):
                self._details.pop(index, None)
        self._events.free_all(slot)
        self._appended = None
        self._metadata.pop(slot, None)
        self._counts[_NO_STATUS] += 1
        self._counts[self._statuses[slot]] -= 1
        self._statuses[slot] = _NO_STATUS
        self._ids[slot] = _NO_ID
        self._free_slots.append(slot)
        return True


def _columns(length: int | None) -> AllEvents | LatestEvents | LastEvents:
    if length is None:
        return AllEvents()
    return LatestEvents() if length == 1 else LastEvents(length)


def key_of(item_id: Any) -> Any:
    """
    Return the key of *item_id*: itself, or its whole repr if it cannot be hashed.

    If it has no repr either, its identity: the column of ids keeps it alive.
    """
    try:
        hash(item_id)
    except Exception:
        try:
            return key_of, repr(item_id)
        except Exception:
            return key_of, id(item_id)
    return item_id
