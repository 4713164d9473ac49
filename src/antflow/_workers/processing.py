"""The general path of an item through a stage: everything that the fast path does not cover."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from .._backend.cancellation import forget_cancellations, is_item_failure
from .._events.publishing import announce
from .._model.record import Record
from .._state.worker import Worker
from .._tasks.task_runner import Failure
from .outcomes import fail, pass_on, schedule_retry
from .pool import Pool


async def process(
    record: Record, pool: Pool, worker: Worker, error: BaseException | None = None
) -> None:
    """
    Process *record* at the stage of *pool*.

    Args:
        record: The item.
        pool: The pool of the stage.
        worker: The worker that has taken the item.
        error: What the sole task raised, if the fast path has already called it.
    """
    bus, runner = pool.services.bus, pool.runner
    outcome: Any = None
    if error is None:
        worker.record = record
        worker.task_name = pool.first_task
        worker.attempt = record.attempt
        if bus.status_subscriptions:
            await announce(bus, "in_progress", record, pool.name, worker.name)
        try:
            outcome = await runner.run(record, worker)
        except BaseException as caught:
            if runner.sole_task is None or not is_item_failure(caught):
                raise
            error = caught
    if error is not None:
        # Outside the except block, or later errors would have this one as context.
        recovery = runner.recover(error, record, worker)
        # Its traceback refers to this frame.
        error = None
        outcome = await recovery
    worker.since = perf_counter()
    worker.record = None
    if type(outcome) is not Failure:
        await pass_on(record, outcome, pool, worker)
    else:
        forget_cancellations()
        await (schedule_retry if outcome.retry else fail)(record, outcome, pool, worker)
    worker.attempt = 1
    worker.mark_idle()
    del record, outcome, pool, runner
