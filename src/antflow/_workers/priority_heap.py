"""How urgent items overtake others: the line of those that wait for a stage."""

from __future__ import annotations

import heapq
import sys
from itertools import count
from typing import Any

from .._model.items import Record


class Ticket:
    """
    What goes through the stream of a stage in place of a record, once priorities are in use.

    Attributes:
        place: Under what the stage's place is held that belongs to this ticket, if there are
            places (see `Places`).
    """

    __slots__ = ("place",)

    def __init__(self, place: object = None) -> None:
        self.place = self if place is None else place


class PriorityHeap:
    """
    The records that wait for one stage, the most urgent first, equals in order of arrival.

    Invariant: a ticket is in the stream, or in the hands of one who waits to send it, for each
    record in the line. So the bounds of the stream hold, while a ticket says only that *some*
    record may go: the most urgent at that moment, also if its own sender still waits for room.
    """

    __slots__ = ("_arrivals", "_early", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Record]] = []
        self._arrivals = count()
        # Whoever was sent before there was a line has been here longer than all in it.
        self._early = count(-sys.maxsize)

    def join(self, record: Record) -> None:
        """Let *record* stand in line; the caller sends a ticket for it."""
        heapq.heappush(self._heap, (record.priority, next(self._arrivals), record))

    def next(self, received: Any) -> Record:
        """
        Return the record whose turn it is.

        Args:
            received: What came out of the stream: a ticket, or a record that was sent before
                there was a line, which then stands in line as well.
        """
        place = received.place
        if isinstance(received, Record):
            place = received if place is None else place
            heapq.heappush(self._heap, (received.priority, next(self._early), received))
        record = heapq.heappop(self._heap)[2]
        record.place = place
        return record
