"""What can be asked of the items of a `StatusTracker`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._model.events import MutableStatusEvent, Status, StatusEvent
from .._model.results import FailedItem
from .event_columns import NO_EVENT
from .item_columns import CODES, PLACE, STATUSES, ItemColumns, key_of

# How often an item is read again because another thread has changed it meanwhile.
_TRIES = 9


class TrackedItems(ItemColumns):
    """
    The items of a tracker, with answers to questions about them.

    Any thread may ask. If an item changes while it is read, it is read again, a few times at most.
    """

    def slot_of(self, item_id: Any) -> int | None:
        """Return the slot of an item, or None if it is unknown."""
        return self._slots.get(key_of(item_id))

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
        code, statuses, numbers = CODES[status], self._statuses, self._numbers
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
        columns, forgotten = self._events, self._forgotten
        try:
            index = columns.newest[slot]
            if index != NO_EVENT:
                event = self._event(self._ids[slot], index, self._metadata.get(slot))
                # As in `_read()`, which costs more.
                if (
                    forgotten == self._forgotten
                    and index == columns.newest[slot]
                    and event.timestamp == columns.read(index)[0]
                ):
                    return event
        except IndexError:
            return None
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
            forgotten, columns = self._forgotten, self._events
            slot = find()
            if slot is None:
                return []
            try:
                newest = columns.newest[slot]
                if newest == NO_EVENT:
                    return []
                before = columns.read(newest)
                item_id, metadata = self._ids[slot], self._metadata.get(slot)
                indices = [newest] if only_newest else columns.indices(slot)
                events = [self._event(item_id, index, metadata) for index in indices]
                after = columns.newest[slot], columns.read(newest)
            except IndexError:
                # All items were forgotten meanwhile.
                return []
            if forgotten == self._forgotten and after == (newest, before):
                break
        return events

    def _event(self, item_id: Any, index: int, metadata: dict[str, Any] | None) -> StatusEvent:
        own, details, failed = self._details.get(index, (metadata, None, None))
        event = MutableStatusEvent()
        event.item_id = item_id
        event.timestamp, code = self._events.read(index)
        event.stage, event.worker = self._places[code // PLACE]
        event.status = STATUSES[code % PLACE]
        event.failed_item = failed
        event.metadata = None if own is details is None else {**(own or {}), **(details or {})}
        event.__class__ = StatusEvent
        return event  # type: ignore[no-any-return]
