"""The entries of an event log, and their texts."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from attrs import frozen

from ..._model.describe import short_repr
from ..._model.events import StatusEvent, TaskEvent
from ..._model.items import DEFAULT_PRIORITY
from ..._model.results import PipelineResult
from .._equality import equality_key


@frozen
class Opened:
    """
    Iteration over a source of `EventLog.source()` began.

    Attributes:
        source: The number of the source, from 0, in the order in which the sources were opened.
    """

    source: int


@frozen
class Read:
    """
    An item was read from a source.

    Attributes:
        item_id: The id of the item.
        sequence_id: Its number in the input, from 0. All sources of the log count together.
        source: The number of the source, as in `Opened`. Default 0.
        priority: The priority of the source; lower values go first. Default 100.
    """

    item_id: Any
    sequence_id: int
    source: int = 0
    priority: float = DEFAULT_PRIORITY


@frozen
class Ended:
    """
    Iteration over a source of `EventLog.source()` ended.

    Attributes:
        source: The number of the source, as in `Opened`.
        early: Whether it was closed or raised an exception before it was exhausted. Default False.
    """

    source: int
    early: bool = False


@frozen
class Taken:
    """
    The consumer of a stream took a result.

    Attributes:
        result: The result.
    """

    result: PipelineResult


# An entry about one item, and any entry.
ItemEntry = StatusEvent | TaskEvent | Read | Taken
Entry = ItemEntry | Opened | Ended


def item_key(entry: ItemEntry) -> Hashable:
    """Return the equality key for the id of the item that *entry* is about."""
    return equality_key(entry.result.id if isinstance(entry, Taken) else entry.item_id)


def event_label(event: StatusEvent | TaskEvent) -> str:
    """Return the step of an item that *event* reports, as text without the worker and the error."""
    if isinstance(event, StatusEvent):
        return status_label(event.stage, event.status)
    return task_event_label(event.stage, event.event_type, event.task_name, event.attempt)


def status_label(stage: str, status: str) -> str:
    """Return the label of a status event."""
    return f"{stage}: {status}"


def task_event_label(stage: str, event_type: str, task_name: str, attempt: int) -> str:
    """Return the label of a task event."""
    return f"{stage}: {event_type} {task_name}, attempt {attempt}"


def format_entry(entry: ItemEntry) -> str:
    """Return one line of text about *entry*."""
    if isinstance(entry, Read):
        return f"read from the source as number {entry.sequence_id}"
    if isinstance(entry, Taken):
        return f"taken from the stream as number {entry.result.sequence_id}"
    error = entry.metadata.get("error") if isinstance(entry, StatusEvent) else entry.error
    worker = "" if entry.worker is None else f", {entry.worker}"
    return f"{event_label(entry)}{worker}" + ("" if error is None else f" ({short_repr(error)})")
