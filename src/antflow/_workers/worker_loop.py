"""The path of an item from stage to stage: handed over, worked on, delivered or written off."""

from __future__ import annotations

from contextvars import copy_context
from time import perf_counter, time
from typing import Any

from anyio import EndOfStream, WouldBlock
from attrs import evolve

from .._backend.cancellation import is_item_failure
from .._backend.context import current_context, reset
from .._backend.hints import add_backend_hint
from .._events.publishing import publish, tell
from .._model.errors import describe_error
from .._model.events import Status
from .._model.items import FailedItem, Record
from .._state.worker import Worker
from .._tasks.task_runner import SKIPPED, Failure
from .pool import ITEMS_PER_TURN, Pool


async def work(pool: Pool, worker: Worker) -> None:
    """
    Take items from the queue of the stage, one after the other, until there are no more.

    One round of the loop is one item at one stage, and its cost is what a pipeline costs. Most
    items can go the straight way, on which nothing is called or awaited that need not be, beside
    the task. All others go the whole way, and so do those that fail.
    """
    state, bus = pool.state, pool.bus
    downstream, sink = pool.downstream, pool.sink
    task: Any = pool.runner.sole_task
    context, present = copy_context(), current_context()
    receive = pool.receive
    record: Any = None
    error = None
    pool.stragglers.begin(worker)
    try:
        if pool.blocked:
            await pool.wait_until_unblocked()
        pool.idle -= 1
        if pool.waiting:
            worker.rest()
        for turn_ends in pool.turns:  # pragma: no branch - there is no end of them
            if state.stopped:
                break
            try:
                is_clean = (copy_context() if present is None else present) == context
            except Exception:
                # Values are compared that belong to the user, and some refuse to be: an array does.
                is_clean = False
            if not is_clean:
                if not reset(context):
                    # A variable that was new cannot be unset. A new task does not have it.
                    pool.restart(worker)
                    return
                context = copy_context()

            # A worker that waits holds no item, and what it held is free (see TaskRunner).
            try:
                if turn_ends and pool.room > ITEMS_PER_TURN:
                    record = None
                    record = await _wait_for_item(pool, worker)
                else:
                    record = receive()
            except WouldBlock:
                record = None
                if pool.idle >= 2:
                    break
                try:
                    record = await _wait_for_item(pool, worker)
                except EndOfStream:
                    break
            except EndOfStream:
                break
            if pool.spare and not pool.idle:
                pool.grow()

            if not pool.has_fast_path or bus.task_subscriptions:
                if pool.line is not None:
                    record = pool.line.next(record)
                await process(record, pool, worker)
                continue

            worker.record = record
            if bus.status_subscriptions:
                pending = publish("in_progress", record, pool, worker.name, time())
                if pending is not None:
                    await pending
            try:
                record.value = await task(record.value)
            except BaseException as caught:
                if not is_item_failure(caught):
                    raise
                error = caught
            if error is not None:
                rest_of_way = process(record, pool, worker, error)
                # Its traceback holds this frame.
                error = None
                await rest_of_way
                continue

            # In one go, with no await in between: the books are right at every instant.
            worker.since = perf_counter()
            worker.processed += 1
            worker.record = None
            if downstream is None:
                state.deliver(record)
            if bus.status_subscriptions:
                now = time()
                pending = publish("completed", record, pool, worker.name, now)
                if pending is not None:
                    await pending
                    now = time()
                if downstream is not None:
                    pending = publish("queued", record, downstream, None, now)
                    if pending is not None:
                        await pending
                worker.rest()
            if downstream is not None:
                try:
                    downstream.entrance.send_nowait(record)
                except WouldBlock:
                    await pool.wait_for_room(downstream.entrance.send(record))
                    worker.rest()
            elif sink is None:
                state.settle()
            else:
                pending = sink.put(record.result())
                if pending is not None:
                    await pool.wait_for_room(pending)
                    worker.rest()
                state.settle()
        pool.leave(worker)
    finally:
        pool.stragglers.end(worker)
        # The traceback of a failure holds this frame, and through these it would hold failures.
        record = None
        del pool, downstream, state, context, present, receive, sink


async def _wait_for_item(pool: Pool, worker: Worker) -> Record:
    """Let others have a turn, and wait until there is an item."""
    pool.next_batch = 1
    pool.idle += 1
    try:
        record: Record = await pool.stream.receive()
    finally:
        pool.idle -= 1
    worker.rest()
    return record


async def process(
    record: Record, pool: Pool, worker: Worker, error: BaseException | None = None
) -> None:
    """
    Let *record* go the whole way through its stage.

    Args:
        record: What *worker* has in hand.
        pool: That of the stage.
        worker: Whoever it is.
        error: What the sole task raised, if it was called already.
    """
    bus, runner, downstream, places = pool.bus, pool.runner, pool.downstream, pool.places
    outcome: Any = None
    if error is None:
        worker.record = record
        worker.task_name = pool.stage_state.first_task
        if bus.status_subscriptions:
            pending = publish("in_progress", record, pool, worker.name, time())
            if pending is not None:
                await pending
        try:
            outcome = await runner.run(record, worker)
        except BaseException as caught:
            if runner.sole_task is None or not is_item_failure(caught):
                raise
            error = caught
    if error is not None:
        # Outside the except block, which would be the context of later errors.
        recovery = runner.recover(error, record, worker)
        # As in `work()`.
        error = None
        outcome = await recovery
    worker.since = perf_counter()
    worker.record = None

    if type(outcome) is Failure:
        if outcome.again:
            await _retry(record, outcome, pool, worker)
        else:
            await _fail(record, outcome, pool, worker)
    else:
        status: Status = "completed"
        listeners = pool.hooks.success
        if outcome is SKIPPED:
            status = "skipped"
            listeners = pool.hooks.skip
            pool.stage_state.skipped += 1
        else:
            record.value = outcome
        # In one go, with no await in between: the books are right at every instant.
        worker.processed += 1
        if downstream is None:
            pool.state.deliver(record)
        if bus.status_subscriptions:
            pending = publish(status, record, pool, worker.name, time())
            if pending is not None:
                await pending
        if listeners:
            await tell(listeners, record, record.value)
        place = None
        if places is not None:
            place = places.place_of(record)
            # What this stage counted is nothing to the next.
            record.attempt, record.retries = 1, None
        if downstream is not None:
            if bus.status_subscriptions:
                pending = publish("queued", record, downstream, None, time())
                if pending is not None:
                    await pending
            try:
                downstream.entrance.send_nowait(record)
            except WouldBlock:
                await pool.wait_for_room(downstream.entrance.send(record))
        elif pool.sink is not None:
            pending = pool.sink.put(record.result())
            if pending is not None:
                await pool.wait_for_room(pending)
        if places is not None:
            # Only now: an item that waits for room in the next stage still counts here.
            places.release(place)
        if downstream is None:
            pool.state.settle()
    worker.rest()
    # As in `work()`.
    del record, outcome, pool, runner, downstream


async def _retry(record: Record, failure: Failure, pool: Pool, worker: Worker) -> None:
    """Leave *record* to a back-off that needs no worker."""
    if pool.bus.status_subscriptions:
        pending = publish(
            "retrying",
            record,
            pool,
            worker.name,
            time(),
            {
                "error": describe_error(failure.error),
                "error_type": type(failure.error).__name__,
                "attempt": record.attempt + 1,
                "retry": record.attempt,
            },
        )
        if pending is not None:
            await pending
    pool.start_back_off(pool, worker, record, failure)


async def back_off(pool: Pool, worker: Worker, record: Record, failure: Failure) -> None:
    """Wait until *record* may be tried again, then queue it for its stage once more."""
    try:
        await record.retries.back_off()
    except BaseException as error:
        if not is_item_failure(error):
            raise
        await _fail(record, evolve(failure, error=error), pool, worker)
    else:
        record.attempt += 1
        pool.requeue(record)


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
        metadata=dict(record.metadata or {}),
        sequence_id=record.sequence_id,
    )
    worker.failed += 1
    pool.state.fail(failed)
    if pool.bus.status_subscriptions:
        more = {
            "error": failed.error,
            "error_type": failed.error_type,
            "task_name": failed.task_name,
            "attempts": failed.attempts,
        }
        pending = publish("failed", record, pool, worker.name, failed.timestamp, more, failed)
        if pending is not None:
            await pending
    if pool.hooks.failure:
        await tell(pool.hooks.failure, record, failure.error)
    if pool.sink is not None:
        pending = pool.sink.put(record.result(failure.error))
        if pending is not None:
            await pending
    if pool.places is not None:
        pool.places.release(pool.places.place_of(record))
    pool.state.settle()
    if pool.state.too_many:
        pool.stop()
