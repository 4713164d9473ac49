"""Builds and publishes status events."""

from __future__ import annotations

from collections.abc import Awaitable
from time import time
from typing import Any

from .._model.events import MutableStatusEvent, Status, StatusEvent
from .._model.record import Record
from .._model.results import FailedItem
from .event_bus import EventBus, publish_to


def publish(
    bus: EventBus,
    status: Status,
    record: Record,
    stage: str,
    worker_name: str | None,
    now: float,
    details: dict[str, Any] | None = None,
    failed: FailedItem | None = None,
) -> Awaitable[None] | None:
    """
    Publish that *record* has *status* at *stage*.

    Args:
        bus: Where to publish.
        status: The new status.
        record: The item.
        stage: The name of the stage.
        worker_name: The worker that processes the item; None if it is queued.
        now: The timestamp of the event, in Unix seconds.
        details: Added to the metadata of the item in the event.
        failed: The failure, if *status* is ``failed``.

    Returns:
        As `publish_to()`.
    """
    event = MutableStatusEvent()
    event.item_id = record.id
    event.stage = stage
    event.status = status
    event.worker = worker_name
    event.timestamp = now
    metadata = record.metadata
    if details is not None:
        metadata = {**(metadata or {}), **details}
    elif metadata is not None:
        metadata = metadata.copy()
    event.metadata = metadata
    event.failed_item = failed
    event.__class__ = StatusEvent
    return publish_to(bus.status_subscriptions, event)


async def announce(
    bus: EventBus,
    status: Status,
    record: Record,
    stage: str,
    worker_name: str | None,
    details: dict[str, Any] | None = None,
    failed: FailedItem | None = None,
) -> None:
    """`publish()` with the current time, or that of *failed*, and wait for the handlers."""
    now = time() if failed is None else failed.timestamp
    pending = publish(bus, status, record, stage, worker_name, now, details, failed)
    if pending is not None:
        await pending
