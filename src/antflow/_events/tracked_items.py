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

from .._model.events import MutableStatusEvent, Status, StatusEvent
from .._model.record import Record
from .._model.results import FailedItem
from .event_columns import NO_EVENT, AllEvents, LastEvents

STATUSES: tuple[Status, ...] = get_args(Status)
_CODES: dict[Status, int] = {status: code for code, status in enumerate(STATUSES)}
# The code of a slot without an event. Such slots are counted like the others.
_NO_STATUS = len(STATUSES)
# An event's code is the number of its place times this, plus the code of its status.
_STATUS_CODES = 8
_TRIES = 9


class TrackedItems:
    """
    The items of a tracker.

    Args:
        length: How many events of each item are kept; None for all.
        on_error: Called with what `keep()` raises, because of an id that raises.
    """

    def __init__(self, length: int | None, on_error: Callable[[BaseException], None]) -> None:
        self._length = length
        self._on_error = on_error
        self.clear()

    def clear(self) -> None:
        """Forget all items."""
        # All of these are new, because another thread may be reading the old ones.
        # By the key of its id, the slot of an item.
        self._slots: dict[Any, int] = {}
        # By slot.
        self._ids: list[Any] = []
        self._statuses = bytearray()
        self._all = AllEvents() if self._length is None else None
        self._events = self._all or LastEvents(self._length or 1)
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
        # Pairs of stage and worker; and their numbers times `_STATUS_CODES`, by the name of the
        # stage if there is no worker, else by that of the worker.
        self._places: list[tuple[str, str | None]] = []
        self._queues: dict[str, int] = {}
        self._workers: dict[str | tuple[str, str], int] = {}
        self._free_slots: list[int] = []
        self._forgotten = 0
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
            code = _CODES[status]
            place = self._queues.get(stage) if worker is None else self._workers.get(worker)
            if place is None:
                place = self._add_place(stage, worker)
            # A record remembers its slot, because a lookup by id costs more. If the slot is another
            # item's meanwhile, it has another id.
            slot, ids = record.entry, self._ids
            if slot is None or slot >= len(ids) or ids[slot] is not record.id:
                slot = record.entry = self._find_or_add(record.id)
            newest, columns = self._newest, self._all
            if columns is not None and columns.free == NO_EVENT:
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
        try:
            slot = self._slots.get(item_id)
        except Exception:
            # It cannot be hashed, or raises when it is compared with the others.
            slot = self._slots.get(_key(item_id))
        return self._add(item_id) if slot is None else slot

    def _add_place(self, stage: str, worker: str | tuple[str, str] | None) -> int:
        number = len(self._places) * _STATUS_CODES
        if worker is None:
            self._places.append((stage, None))
            self._queues[stage] = number
        else:
            self._places.append(worker if isinstance(worker, tuple) else (stage, worker))
            self._workers[worker] = number
        return number

    def _add(self, item_id: Any) -> int:
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
        self._slots[_key(item_id)] = slot
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
        key = _key(self._ids[slot])
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
        # First, so that other threads notice that what they read may be another item's.
        self._forgotten += 1
        if self._details:
            for index in self._events.indices(slot):
                self._details.pop(index, None)
        self._events.free_all(slot)
        self._metadata.pop(slot, None)
        self._counts[_NO_STATUS] += 1
        self._counts[self._statuses[slot]] -= 1
        self._statuses[slot] = _NO_STATUS
        self._ids[slot] = None
        self._free_slots.append(slot)
        return True

    def slot_of(self, item_id: Any) -> int | None:
        """Return the slot of an item, or None if it is unknown."""
        return self._slots.get(_key(item_id))

    def ids(self) -> list[Any]:
        """Return the ids of all items, in the order of their first event."""
        if self._numbers is None:
            return self._ids.copy()
        # A dict keeps the order in which its keys were added.
        slots, ids = list(self._slots.values()), self._ids.copy()
        return [ids[slot] for slot in slots if slot < len(ids)]

    def counts(self) -> dict[str, int]:
        """Return how many items have each status."""
        return dict(zip(STATUSES, self._counts.copy()))

    def with_status(self, status: Status) -> list[int]:
        """Return the slots of the items that have *status*, in the order of their first event."""
        code, statuses, numbers = _CODES[status], self._statuses, self._numbers
        slots = []
        slot = statuses.find(code)
        while slot >= 0:
            slots.append(slot)
            slot = statuses.find(code, slot + 1)
        if numbers is not None:
            slots.sort(key=numbers.__getitem__)
        return slots

    def failure(self, slot: int) -> FailedItem | None:
        """Return the failure of the item in *slot*, if that is its newest event."""
        newest = self._newest[slot : slot + 1]
        details = self._details.get(newest[0]) if newest else None
        return None if details is None else details[2]

    def newest(self, slot: int) -> StatusEvent | None:
        """Return the newest event of the item in *slot*; None if it was forgotten."""
        events = self._read(lambda: slot, only_newest=True)
        return events[0] if events else None

    def latest(self, item_id: Any) -> StatusEvent | None:
        """Return the newest event of an item; None if it is unknown."""
        events = self._read(lambda: self.slot_of(item_id), only_newest=True)
        return events[0] if events else None

    def history(self, item_id: Any) -> list[StatusEvent]:
        """Return the events that are kept of an item, oldest first."""
        return self._read(lambda: self.slot_of(item_id))

    def _read(self, find: Callable[[], int | None], only_newest: bool = False) -> list[StatusEvent]:
        """Return the events of the item in the slot that *find* returns."""
        events: list[StatusEvent] = []
        for _ in range(_TRIES):
            # Of all that is read, only this may belong to another item afterwards.
            forgotten, columns = self._forgotten, self._events
            slot = find()
            if slot is None or slot >= len(columns.newest):
                return []
            newest = columns.newest[slot]
            if newest == NO_EVENT:
                return []
            before = columns.read(newest)
            item_id, metadata = self._ids[slot], self._metadata.get(slot)
            indices = [newest] if only_newest else columns.indices(slot)
            events = [self._event(item_id, index, metadata) for index in indices]
            if (
                forgotten == self._forgotten
                and newest == columns.newest[slot]
                and before == columns.read(newest)
            ):
                break
        return events

    def _event(self, item_id: Any, index: int, metadata: dict[str, Any] | None) -> StatusEvent:
        details = failed = None
        if index in self._details:
            metadata, details, failed = self._details.get(index, (metadata, None, None))
        event = MutableStatusEvent()
        event.item_id = item_id
        event.timestamp, code = self._events.read(index)
        event.stage, event.worker = self._places[code // _STATUS_CODES]
        event.status = STATUSES[code % _STATUS_CODES]
        event.failed_item = failed
        event.metadata = (
            None if metadata is None and details is None else {**(metadata or {}), **(details or {})}
        )
        event.__class__ = StatusEvent
        return event  # type: ignore[no-any-return]


def _key(item_id: Any) -> Any:
    """
    Return the key of *item_id*: itself, or its whole repr if it cannot be hashed.

    If it has no repr either, its identity: the column of ids keeps it alive.
    """
    try:
        hash(item_id)
    except Exception:
        try:
            return _key, repr(item_id)
        except Exception:
            return _key, id(item_id)
    return item_id
