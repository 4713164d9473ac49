"""
Status events in columns of numbers, and not as objects.

An event has an index, a timestamp, a code (stage, worker and status) and, if several are kept of an
item, a link to another of the same item. Events that were freed are chained by their links, and
their indices are used again.

One thread writes, and others may read. `AllEvents` completes an event before its index is known to
readers. `LastEvents` replaces events that others may be reading, so it writes and reads each of
them by one call of a C function.
"""

from __future__ import annotations

from array import array
from struct import Struct

# The link of an event that has none. So many events would take 70 gigabytes.
NO_EVENT = 2**32 - 1


class AllEvents:
    """
    Keeps all events of each item.

    Each event links to the one before, so that nothing changes but what is appended.

    Attributes:
        newest: By the slot of the item, the index of its newest event, or `NO_EVENT`. The caller of
            `add()` sets it.
        timestamps: By index, Unix seconds.
        codes: By index.
        links: By index.
        free: The index of the first event that was freed.
    """

    def __init__(self) -> None:
        self.newest = array("I")
        self.timestamps = array("d")
        self.codes = array("I")
        self.links = array("I")
        self.free = NO_EVENT

    def add_slot(self) -> None:
        """Make room for one more item."""
        self.newest.append(NO_EVENT)

    def add(self, slot: int, timestamp: float, code: int) -> int:
        """Write an event of the item in *slot*, and return its index."""
        index = self.free
        if index == NO_EVENT:
            index = len(self.codes)
            self.timestamps.append(timestamp)
            self.links.append(self.newest[slot])
            self.codes.append(code)
        else:
            self.free = self.links[index]
            self.timestamps[index] = timestamp
            self.links[index] = self.newest[slot]
            self.codes[index] = code
        return index

    def read(self, index: int) -> tuple[float, int]:
        """Return the timestamp and the code of an event."""
        return self.timestamps[index], self.codes[index]

    def indices(self, slot: int) -> list[int]:
        """Return the indices of the events of the item in *slot*, oldest first."""
        indices = []
        index = self.newest[slot]
        while index != NO_EVENT:
            indices.append(index)
            index = self.links[index]
        indices.reverse()
        return indices

    def free_all(self, slot: int) -> None:
        """Free the events of the item in *slot*; it has at least one."""
        oldest = self.indices(slot)[0]
        self.links[oldest] = self.free
        self.free = self.newest[slot]
        self.newest[slot] = NO_EVENT


class LatestEvents:
    """
    Keeps the latest event of each item; with the same methods as `AllEvents`.

    Its index is the slot. Another thread may find the code of one event with the timestamp of the
    next, which is written first.

    Attributes:
        newest: As in `AllEvents`.
    """

    def __init__(self) -> None:
        self.newest = array("I")
        self._timestamps = array("d")
        self._codes = array("I")

    def add_slot(self) -> None:
        """Make room for one more item."""
        self._timestamps.append(0.0)
        self._codes.append(0)
        self.newest.append(NO_EVENT)

    def add(self, slot: int, timestamp: float, code: int) -> int:
        """Write an event of the item in *slot*, and return its index."""
        self._timestamps[slot] = timestamp
        self._codes[slot] = code
        return slot

    def read(self, index: int) -> tuple[float, int]:
        """Return the timestamp and the code of an event."""
        return self._timestamps[index], self._codes[index]

    def indices(self, slot: int) -> list[int]:
        """Return the index of the event of the item in *slot*."""
        return [slot]

    def free_all(self, slot: int) -> None:
        """Free the event of the item in *slot*."""
        self.newest[slot] = NO_EVENT


# Timestamp, code, link.
_EVENT = Struct("<dII")
_SIZE = _EVENT.size


class LastEvents:
    """
    Keeps the last events of each item; with the same methods as `AllEvents`.

    The events of an item are a ring: each links to the next, and the newest to the oldest. When
    there are *length* of them, the next replaces the oldest, and no link changes.

    Args:
        length: How many events of an item are kept at most: at least 2.

    Attributes:
        newest: As in `AllEvents`.
    """

    def __init__(self, length: int) -> None:
        self.newest = array("I")
        self._length = length
        self._lengths = array("Q")
        self._packed = bytearray()
        self._free = NO_EVENT

    def add_slot(self) -> None:
        """Make room for one more item."""
        self.newest.append(NO_EVENT)
        self._lengths.append(0)

    def add(self, slot: int, timestamp: float, code: int) -> int:
        """Write an event of the item in *slot*, and return its index."""
        newest = self.newest[slot]
        if self._lengths[slot] == self._length:
            index = self._link(newest)
            self._write(index, timestamp, code, self._link(index))
            return index
        self._lengths[slot] += 1
        index = self._free
        if index == NO_EVENT:
            index = len(self._packed) // _SIZE
            self._packed += bytes(_SIZE)
        else:
            self._free = self._link(index)
        if newest == NO_EVENT:
            self._write(index, timestamp, code, index)
        else:
            self._write(index, timestamp, code, self._link(newest))
            self._set_link(newest, index)
        return index

    def read(self, index: int) -> tuple[float, int]:
        """Return the timestamp and the code of an event."""
        timestamp, code, _ = _EVENT.unpack_from(self._packed, index * _SIZE)
        return timestamp, code

    def indices(self, slot: int) -> list[int]:
        """Return the indices of the events of the item in *slot*, oldest first."""
        indices = []
        index = self.newest[slot]
        # Not until the newest is reached again, because another thread may change the ring.
        for _ in range(self._lengths[slot]):
            index = self._link(index)
            indices.append(index)
        return indices

    def free_all(self, slot: int) -> None:
        """Free the events of the item in *slot*; it has at least one."""
        newest = self.newest[slot]
        oldest = self._link(newest)
        self._set_link(newest, self._free)
        self._free = oldest
        self.newest[slot] = NO_EVENT
        self._lengths[slot] = 0

    def _write(self, index: int, timestamp: float, code: int, link: int) -> None:
        _EVENT.pack_into(self._packed, index * _SIZE, timestamp, code, link)

    def _link(self, index: int) -> int:
        link: int = _EVENT.unpack_from(self._packed, index * _SIZE)[2]
        return link

    def _set_link(self, index: int, link: int) -> None:
        timestamp, code = self.read(index)
        self._write(index, timestamp, code, link)
