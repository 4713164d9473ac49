"""
The loop of a worker, with the fast path of an item.

Theory of operation
===================

Each worker of a stage runs `work()` in a loop task of its own. One iteration processes one item at
one stage, so its cost dominates the cost of a pipeline. The cases, in the order of the code:

1. The run is stopping: leave the loop.
2. A task has changed context variables: restore them. If that is not possible, because a variable
   is new, continue in a new loop task. From then on, each item of the stage takes the general path,
   in a context of its own.
3. The queue has an item: take it without awaiting. Only where many items could be taken in a row,
   every 256th is awaited, which yields to the event loop (see `fairness`).
4. The queue is empty: leave if two others are idle, else wait for an item. The queue is closed:
   leave. The last worker to leave closes the next queue, so the end of the run follows the items.
5. No worker is idle, and there are spare ones: start more (see `scaling`).
6. The general path, in `processing`: for stages with several tasks, concurrency limits, `skip_if`,
   per-stage retry or success callbacks; with a watchdog; once priorities are in use; while there
   are subscribers to task events; and for each item whose task raises.
7. The fast path, in the rest of the loop. It awaits the task, and anything else only if it has to
   wait. It does inline what the outlets do, because a call per item and stage is too expensive.
   State changes precede notifications: when the task has returned, all counters change before the
   next await.
"""

from __future__ import annotations

from contextvars import copy_context
from time import perf_counter, time
from typing import Any

from anyio import EndOfStream, WouldBlock
from anyio.lowlevel import checkpoint

from .._backend.cancellation import forget_cancellations, is_item_failure
from .._backend.context import current_context, restore_context, run_in_context
from .._backend.fairness import ITEMS_PER_YIELD
from .._events.publishing import publish
from .._model.record import Record
from .._state.worker import Worker
from .outlets import NextStage, StreamOutlet, wait_for_room
from .pool import Pool
from .processing import process
from .scaling import StandBy


async def work(pool: Pool, worker: Worker) -> None:
    """Process items from the queue of *pool*, one after the other, until there are no more."""
    services, queue, scaling, outlet = pool.services, pool.queue, pool.scaling, pool.outlet
    bus, completion, lifecycle = services.bus, services.completion, services.state.lifecycle
    downstream = outlet if type(outlet) is NextStage else None
    next_queue = None if downstream is None else downstream.queue
    next_stage = None if downstream is None else downstream.stage_state
    sink = outlet.sink if type(outlet) is StreamOutlet else None
    task: Any = pool.runner.sole_task
    keep = services.state.results.keep
    services.token.enter(worker)
    context, current = copy_context(), current_context()
    running = services.stragglers.running
    receive_nowait = pool.receive_nowait
    record: Any = None
    notify: Any = None
    error = None
    running.add(worker)
    try:
        if scaling.blocked:
            await _stand_by(pool)
        scaling.began()
        if queue.waiting:
            worker.mark_idle()
        for yields_first in pool.yield_points:  # pragma: no branch - it is endless
            if lifecycle.is_stopping:
                break
            try:
                is_clean = (copy_context() if current is None else current) == context
            except Exception:
                # This compares the user's values, which may raise: numpy arrays do, for example.
                is_clean = False
            if not is_clean:
                if not restore_context(context):
                    pool.isolate_items()
                    scaling.restarted()
                    _start(pool, worker)
                    return
                context = copy_context()

            # Drop the record before waiting, so that it can be freed.
            try:
                if yields_first and queue.max_queued > ITEMS_PER_YIELD:
                    record = None
                    record = await _wait_for_item(pool, worker)
                else:
                    record = receive_nowait()
            except WouldBlock:
                record = None
                if scaling.idle >= 2:
                    break
                try:
                    record = await _wait_for_item(pool, worker)
                except EndOfStream:
                    break
            except EndOfStream:
                break
            if scaling.spare and not scaling.idle:
                start_workers(pool)

            if not pool.has_fast_path or bus.task_subscriptions:
                if queue.heap is not None:
                    record = queue.heap.pop(record)
                processing: Any = process(record, pool, worker)
                if pool.isolates_items:
                    processing = run_in_context(context.copy(), processing)
                await processing
                continue

            worker.record = record
            if bus.status_subscriptions:
                notify = bus.keep or publish
                pending = notify(bus, "in_progress", record, pool.name, worker.name, time())
                if pending is not None:
                    await pending
            try:
                record.value = await task(record.value)
            except BaseException as caught:
                if not is_item_failure(caught):
                    raise
                error = caught
            if error is not None:
                forget_cancellations()
                processing = process(record, pool, worker, error)
                # Its traceback refers to this frame.
                error = None
                await processing
                continue

            worker.since = perf_counter()
            worker.processed += 1
            worker.record = None
            if next_stage is None:
                keep(record)
            else:
                next_stage.arrived += 1
            if bus.status_subscriptions:
                now = time()
                notify = bus.keep or publish
                pending = notify(bus, "completed", record, pool.name, worker.name, now)
                if pending is not None:
                    await pending
                    now = time()
                if downstream is not None:
                    pending = notify(bus, "queued", record, downstream.name, None, now)
                    if pending is not None:
                        await pending
                if bus.keep is None:
                    # A tracker takes so little time that it is not measured.
                    worker.mark_idle()
            if next_queue is not None:
                try:
                    next_queue.inlet.send_nowait(record)
                except WouldBlock:
                    await wait_for_room(scaling, next_queue.inlet.send(record))
                    worker.mark_idle()
            elif sink is None:
                completion.settle()
            else:
                pending = sink.put(record.result())
                if pending is not None:
                    await wait_for_room(scaling, pending)
                    worker.mark_idle()
                completion.settle()
        # In a run that is stopping, nothing waits for the end of the queue, and senders may remain.
        is_last = scaling.left(worker.number)
        if is_last and next_queue is not None and not lifecycle.is_stopping:
            next_queue.inlet.close()
    finally:
        running.discard(worker)
        if lifecycle.is_stopping and not running:
            services.stragglers.all_gone()
        # The traceback of a failure refers to this frame, and so, through these, to other failures.
        record = notify = None
        del pool, services, queue, outlet, downstream, sink, completion, lifecycle, context, current
        del next_queue, next_stage, running, receive_nowait, keep


def start_workers(pool: Pool) -> None:
    """Start as many workers as `Scaling` says; at least one must be spare."""
    for _ in range(pool.scaling.taken(pool.queue.waiting)):
        _start(pool, pool.claim_worker())


def _start(pool: Pool, worker: Worker) -> None:
    # The loop task has the name of the worker, for debuggers and loop instruments.
    pool.services.tasks.start(work(pool, worker), name=worker.name)


async def _stand_by(pool: Pool) -> None:
    """Wait before a worker begins, while others are blocked."""
    completion, lifecycle = pool.services.completion, pool.services.state.lifecycle
    stand_by = StandBy(pool.scaling, completion.settled)
    while not lifecycle.is_stopping and stand_by.should_wait(completion.settled):
        await checkpoint()


async def _wait_for_item(pool: Pool, worker: Worker) -> Record:
    """Yield to the event loop, then wait for an item."""
    pool.scaling.started_waiting()
    try:
        record: Record = await pool.queue.receiver.receive()
    finally:
        pool.scaling.stopped_waiting()
    worker.mark_idle()
    return record
