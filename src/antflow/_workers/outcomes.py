"""The outcome of an item at a stage: it is completed, skipped, retried or failed."""

from __future__ import annotations

from time import time
from typing import Any

from attrs import evolve

from .._backend.cancellation import is_item_failure
from .._backend.hints import add_backend_hint
from .._events.callbacks import notify_all
from .._events.publishing import announce
from .._model.describe import describe_error
from .._model.events import Status
from .._model.record import Record
from .._model.results import FailedItem
from .._model.tracebacks import clear_frames
from .._state.worker import Worker
from .._tasks.task_runner import SKIPPED, Failure
from .pool import Pool


async def pass_on(record: Record, outcome: Any, pool: Pool, worker: Worker) -> None:
    """
    Mark *record* completed or skipped, notify, and hand it over to the outlet.

    Args:
        record: The item.
        outcome: What the last task returned, or `SKIPPED`.
        pool: The pool of the stage.
        worker: The worker that processed it.
    """
    bus, slots, outlet = pool.services.bus, pool.queue.slots, pool.outlet
    status: Status = "completed"
    callbacks = pool.callbacks.success
    if outcome is SKIPPED:
        status = "skipped"
        callbacks = pool.callbacks.skip
        pool.stage_state.skipped += 1
    else:
        record.value = outcome
    # State changes precede notifications, without an await in between.
    worker.processed += 1
    outlet.commit(record)
    if bus.status_subscriptions:
        await announce(bus, status, record, pool.name, worker.name)
    if callbacks:
        await notify_all(callbacks, record, record.value)
    slot = None
    if slots is not None:
        slot = slots.take_slot(record)
        # These belong to this stage.
        record.attempt, record.retries = 1, None
    await outlet.hand_over(record, pool.scaling)
    if slots is not None:
        # Only now, because an item that waits for room in the next stage still occupies this one.
        slots.release(slot)


async def schedule_retry(record: Record, failure: Failure, pool: Pool, worker: Worker) -> None:
    """Schedule a per-stage retry: the back-off has a loop task of its own and needs no worker."""
    services = pool.services
    if services.bus.status_subscriptions:
        details = {
            "error": describe_error(failure.error),
            "error_type": type(failure.error).__name__,
            "attempt": record.attempt + 1,
            "retry": record.attempt,
        }
        await announce(services.bus, "retrying", record, pool.name, worker.name, details)
    services.tasks.start(back_off(record, failure, pool, worker))


async def back_off(record: Record, failure: Failure, pool: Pool, worker: Worker) -> None:
    """Wait until the next attempt of *record* is due, then queue it again."""
    pool.services.token.enter()
    try:
        await record.retries.back_off()
    except BaseException as error:
        if not is_item_failure(error):
            raise
        await fail(record, evolve(failure, error=error), pool, worker)
    else:
        record.attempt += 1
        pool.queue.requeue(record)


async def fail(record: Record, failure: Failure, pool: Pool, worker: Worker) -> None:
    """Record the failure, notify, and stop the run if ``max_failures`` is exceeded."""
    services, slots = pool.services, pool.queue.slots
    text = describe_error(failure.error)
    hint = add_backend_hint(failure.error)
    failed = FailedItem(
        item_id=record.id,
        error=text if hint is None else f"{text}: {hint}",
        error_type=type(failure.error).__name__,
        stage=pool.name,
        attempts=failure.attempts,
        timestamp=time(),
        value=record.input,
        stage_value=record.value,
        exception=failure.error,
        task_name=failure.task_name,
        metadata=dict(record.metadata or {}),
        sequence_id=record.sequence_id,
    )
    worker.failed += 1
    services.state.fail(failed)
    try:
        await _notify_of_failure(record, failed, pool, worker)
    finally:
        if not services.state.results.keep_frames:
            # Otherwise, what keeps the failure would keep the local variables of the task as well.
            clear_frames(failure.error)
    await services.final_outlet.hand_over_failure(record, failed)
    if slots is not None:
        slots.release(slots.take_slot(record))
    if services.state.lifecycle.has_too_many_failures:
        services.tasks.cancel()


async def _notify_of_failure(
    record: Record, failed: FailedItem, pool: Pool, worker: Worker
) -> None:
    bus = pool.services.bus
    if bus.status_subscriptions:
        details = {
            "error": failed.error,
            "error_type": failed.error_type,
            "task_name": failed.task_name,
            "attempts": failed.attempts,
        }
        await announce(bus, "failed", record, pool.name, worker.name, details, failed)
    if pool.callbacks.failure:
        await notify_all(pool.callbacks.failure, record, failed.exception, failed)
