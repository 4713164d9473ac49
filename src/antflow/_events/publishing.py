"""Who hears what became of an item: the listeners of its events, the callbacks for its values."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from .._model.events import NewStatusEvent, Status, StatusEvent
from .._model.items import FailedItem, Record
from .._workers.pool import Pool
from .event_bus import Subscription, publish_to


def publish(
    status: Status,
    record: Record,
    pool: Pool,
    worker_name: str | None,
    now: float,
    more: dict[str, Any] | None = None,
    failed: FailedItem | None = None,
) -> Awaitable[None] | None:
    """
    Tell of *record* at Unix time *now*, with *more* beside its own metadata.

    Returns:
        As `publish_to()`.
    """
    event = NewStatusEvent()
    event.item_id = record.id
    event.stage = pool.name
    event.status = status
    event.worker = worker_name
    event.timestamp = now
    metadata = record.metadata
    if more is not None:
        metadata = {**(metadata or {}), **more}
    elif metadata is not None:
        metadata = metadata.copy()
    event.metadata = metadata
    event.failed_item = failed
    event.__class__ = StatusEvent
    return publish_to(pool.bus.status_subscriptions, event)


async def tell(listeners: tuple[Subscription, ...], record: Record, outcome: Any) -> None:
    """Call those who asked for values, each with a payload of its own."""
    for subscription in listeners:
        pending = subscription.notify(record.id, outcome, record.payload())
        if pending is not None:
            await pending
