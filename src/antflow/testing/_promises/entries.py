"""The kinds of entries of a log, and how they read."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from attrs import frozen

from ..._model.describe import short_repr
from ..._model.events import StatusEvent, TaskEvent
from ..._model.items import DEFAULT_PRIORITY
from ..._model.results import PipelineResult
from .._equality import key_of


@frozen
class Opened:
    """
    A source that `EventLog.source()` wraps was begun.

    Attributes:
        source: Its number, from 0.
    """

    source: int


@frozen
class Read:
    """
    An item was read from the source.

    Attributes:
        item_id: Its id.
        sequence_id: How many were read before it.
        source: The number of the source.
        priority: With which it is fed.
    """

    item_id: Any
    sequence_id: int
    source: int = 0
    priority: float = DEFAULT_PRIORITY


@frozen
class Ended:
    """
    A source that `EventLog.source()` wraps gives no more.

    Attributes:
        source: The number of the source.
        early: Whether it was closed, or raised, before its end.
    """

    source: int
    early: bool = False


@frozen
class Taken:
    """A result of a stream was taken by its consumer."""

    result: PipelineResult


# About an item, and all.
ItemEntry = StatusEvent | TaskEvent | Read | Taken
Entry = ItemEntry | Opened | Ended


def key_of_entry(entry: ItemEntry) -> Hashable:
    """Return what stands for the id of the item that *entry* is about."""
    return key_of(entry.result.id if isinstance(entry, Taken) else entry.item_id)


def words_of(entry: StatusEvent | TaskEvent) -> str:
    """Return what tells the events of one item apart."""
    if isinstance(entry, StatusEvent):
        return f"{entry.stage}: {entry.status}"
    return f"{entry.stage}: {entry.event_type} {entry.task_name}, attempt {entry.attempt}"


def describe(entry: ItemEntry) -> str:
    """Return *entry* as a line of text."""
    if isinstance(entry, Read):
        return f"read as number {entry.sequence_id}"
    if isinstance(entry, Taken):
        return f"taken as number {entry.result.sequence_id}"
    error = entry.metadata.get("error") if isinstance(entry, StatusEvent) else entry.error
    worker = "" if entry.worker is None else f", {entry.worker}"
    return f"{words_of(entry)}{worker}" + ("" if error is None else f" ({short_repr(error)})")
