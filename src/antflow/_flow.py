"""The path of an item from stage to stage: handed over, worked on, delivered or written off."""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import Context, copy_context
from time import perf_counter, time
from typing import Any

from anyio import EndOfStream, WouldBlock
from anyio.lowlevel import checkpoint
from attrs import evolve

from ._backend_hints import add_backend_hint
from ._bus import Subscription
from ._errors import describe_error
from ._events import Status, StatusEvent
from ._items import FailedItem, Record
from ._pool import Pool
from ._task_runner import SKIPPED, Failure
from ._worker import Worker

# A loop that never had to wait lets others run after so many items. Each time costs about as much
# as an item; the price is that tasks which never await hold up the rest for so many of them.
ITEMS_PER_TURN = 64


async def work(pool: Pool, worker: Worker) -> None:
    """
    Take items from the queue of the stage, one after the other, until there are no more.

    One round of the loop is one item at one stage, and its cost is what a pipeline costs: the
    straight way has one coroutine of ours, the task runner's, and awaits nothing else that need
    not wait.
    """
    bus, hooks, following, places = pool.bus, pool.hooks, pool.following, pool.places
    state, receive, sink = pool.state, pool.receive, pool.sink
    context = copy_context()
    end = pool.leave
    turn = 0
    while not state.stopped:
        try:
            record = receive.receive_nowait()
        except WouldBlock:
            if pool.idle >= 2:
                break
            try:
                record = await _wait_for_item(pool)
            except EndOfStream:
                break
            turn = 0
        except EndOfStream:
            break
        if not pool.idle:
            pool.grow()
        if pool.line is not None:
            record = pool.line.next(record)

        worker.record = record
        worker.began = perf_counter()
        if bus.status_subscriptions:
            await _publish("in_progress", record, pool, worker.name)
        outcome = await pool.runner.run(record, worker, record.value)
        if type(outcome) is Failure:
            worker.let_go()
            if outcome.again:
                await _retry(record, outcome, pool, worker)
            else:
                await _fail(record, outcome, pool, worker)
        else:
            status: Status = "completed"
            listeners = hooks.success
            if outcome is SKIPPED:
                status = "skipped"
                listeners = hooks.skip
                pool.stage_state.skipped += 1
            else:
                record.value = outcome
            # In one go, with no await in between: the books are right at every instant.
            worker.processed += 1
            worker.let_go()
            if following is None:
                state.deliver(record)
            if bus.status_subscriptions:
                await _publish(status, record, pool, worker.name)
            if listeners:
                await _tell(listeners, record, record.value)
            place = None if places is None else places.place_of(record)
            if following is not None:
                pending = hand_over(record, following)
            else:
                pending = None if sink is None else sink.put(record.result())
            if pending is not None:
                await pending
            if places is not None:
                # Only now: an item that waits for room in the next stage still counts here.
                places.release(place)
                place = None
            if following is None:
                state.settle()

        # A worker that waits holds no item, and what it held is free (see TaskRunner.run).
        del record, outcome
        try:
            changed = copy_context() != context
        except Exception:
            # Values are compared that belong to the user, and some refuse to be: an array does.
            changed = True
        if changed:
            if not _reset(context):
                # A variable that was new cannot be unset. A new task does not have it.
                end = pool.renew
                break
            context = copy_context()
        turn += 1
        if turn >= ITEMS_PER_TURN:
            # It is as good as idle: nobody else need be started for its sake.
            pool.idle += 1
            try:
                await checkpoint()
            finally:
                pool.idle -= 1
            turn = 0
    end(worker)
    # The traceback of a failure holds this frame, and through these the frame would hold failures.
    del pool, following, state, context, end


def _reset(context: Context) -> bool:
    """Set all context variables to what they are in *context*; return whether that was possible."""
    for variable in copy_context():
        if variable not in context:
            return False
    for variable, value in context.items():
        if variable.get() is not value:
            variable.set(value)
    return True


async def _wait_for_item(pool: Pool) -> Record:
    pool.idle += 1
    try:
        record: Record = await pool.receive.receive()
    finally:
        pool.idle -= 1
    return record


def hand_over(record: Record, pool: Pool) -> Awaitable[None] | None:
    """
    Queue *record* for the stage of *pool*.

    Returns:
        None if that is done, else what must be awaited for it: there is no room, or an event to
        be published. An item that need not wait thus costs no coroutine.
    """
    if record.retries is not None:
        # What the stage before counted is nothing to this one.
        record.attempt = 1
        record.retries = None
    if pool.bus.status_subscriptions:
        return _announce_and_send(record, pool)
    try:
        pool.entrance.send_nowait(record)
    except WouldBlock:
        return pool.entrance.send(record)
    return None


async def _announce_and_send(record: Record, pool: Pool) -> None:
    # In this order: a waiting worker may have the item before `send` returns.
    await _publish("queued", record, pool, None)
    try:
        pool.entrance.send_nowait(record)
    except WouldBlock:
        await pool.entrance.send(record)


async def _retry(record: Record, failure: Failure, pool: Pool, worker: Worker) -> None:
    """Leave *record* to a back-off that needs no worker."""
    if pool.bus.status_subscriptions:
        await _publish(
            "retrying",
            record,
            pool,
            worker.name,
            error=describe_error(failure.error),
            error_type=type(failure.error).__name__,
            attempt=record.attempt + 1,
            retry=record.attempt,
        )
    pool.start_back_off(pool, worker, record, failure)


async def back_off(pool: Pool, worker: Worker, record: Record, failure: Failure) -> None:
    """Wait until *record* may be tried again, then queue it for its stage once more."""
    try:
        await record.retries.back_off()
    except Exception as error:
        await _fail(record, evolve(failure, error=error), pool, worker)
    else:
        record.attempt += 1
        pool.take_back(record)


async def _fail(record: Record, failure: Failure, pool: Pool, worker: Worker) -> None:
    """Write *record* off, tell those who listen, and stop the run if it is one too many."""
    text = describe_error(failure.error)
    hint = add_backend_hint(failure.error)
    failed = FailedItem(
        item_id=record.id,
        error=text if hint is None else f"{text}: {hint}",
        error_type=type(failure.error).__name__,
        stage=pool.stage.name,
        attempts=failure.attempts,
        timestamp=time(),
        value=record.input,
        stage_value=record.value,
        exception=failure.error,
        task_name=failure.task_name,
        metadata=record.metadata,
        sequence_id=record.sequence_id,
    )
    worker.failed += 1
    pool.state.fail(failed)
    if pool.bus.status_subscriptions:
        await _publish(
            "failed",
            record,
            pool,
            worker.name,
            failed,
            error=failed.error,
            error_type=failed.error_type,
            task_name=failed.task_name,
            attempts=failed.attempts,
        )
    if pool.hooks.failure:
        await _tell(pool.hooks.failure, record, failure.error)
    if pool.sink is not None:
        pending = pool.sink.put(record.result(failure.error))
        if pending is not None:
            await pending
    if pool.places is not None:
        pool.places.release(pool.places.place_of(record))
    pool.state.settle()
    if pool.state.too_many:
        pool.stop()


async def _tell(listeners: tuple[Subscription, ...], record: Record, outcome: Any) -> None:
    """Call those who asked for values, each with a payload of its own."""
    for subscription in listeners:
        pending = subscription.notify(record.id, outcome, record.payload())
        if pending is not None:
            await pending


async def _publish(
    status: Status,
    record: Record,
    pool: Pool,
    worker_name: str | None,
    failed: FailedItem | None = None,
    **metadata: Any,
) -> None:
    pending = pool.bus.publish(
        StatusEvent(
            record.id,
            pool.stage.name,
            status,
            worker_name,
            time(),
            {**record.metadata, **metadata},
            failed,
        )
    )
    if pending is not None:
        await pending
