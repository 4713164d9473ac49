"""Runs the tasks of one stage for one item: attempts, limits, retries, and their events."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from time import perf_counter, time
from typing import Any

from anyio import Semaphore
from attrs import define, frozen

from .._backend.cancellation import is_item_failure
from .._definition.callables import is_awaitable
from .._definition.stage import Stage
from .._events.event_bus import EventBus, publish_to
from .._executors.threads import ThreadExecutor
from .._model.events import TaskEvent, TaskEventType
from .._model.record import Record
from .._state.worker import Worker
from .calls import Call, make_call
from .concurrency_limits import acquire_all, make_semaphores, note_held, release_all
from .retries import Retries, ask_for_retry
from .retry_report import Retried
from .watchdog import Watchdog, as_coroutine, drive


@define(eq=False)
class Failure:
    """
    Why a stage did not complete an item.

    It is returned and not raised, so that a task may return any exception as its value.

    Attributes:
        error: What the task raised.
        task_name: The name of the task.
        attempts: How many attempts were made.
        retry: Whether the stage retries the item, after the back-off of `Record.retries`.
    """

    error: BaseException
    task_name: str
    attempts: int
    retry: bool


@frozen(eq=False)
class _Step:
    name: str
    call: Call
    semaphores: tuple[Semaphore, ...]
    watchdog: Watchdog | None
    # Whether it is enough to await the call, as long as no task events are published.
    is_plain: bool


# What the runner returns for an item for which skip_if returned a true value.
SKIPPED = object()


class TaskRunner:
    """
    The tasks of one stage, prepared for one run.

    Args:
        stage: The stage.
        bus: Where task events are published.
        pipeline_semaphores: The concurrency limits of all stages together, by task name.
        watchdog: If given, it watches each call.

    Attributes:
        sole_task: The call of the only task of the stage, if it is enough to await that as long as
            no task events are published; else None. The caller passes what it raises to
            `recover()`.
    """

    __slots__ = ("_bus", "_policy", "_shared", "_skip_if", "_stage_name", "_steps", "sole_task")

    def __init__(
        self,
        stage: Stage,
        bus: EventBus,
        pipeline_semaphores: Mapping[str, Semaphore],
        watchdog: Watchdog | None = None,
    ) -> None:
        self._bus = bus
        # Kept, because they are shared as long as a run has them.
        self._shared = pipeline_semaphores
        self._stage_name = stage.name
        self._skip_if = stage.skip_if
        self._policy = stage.retry_policy
        limits = stage.task_concurrency_limits
        semaphores = make_semaphores(limits) if limits else {}
        executor: ThreadExecutor | None = None
        self._steps = []
        for task in stage._functions:
            call: Call = task.function
            if not task.is_async or stage.unpack_args or stage.task_timeout is not None:
                executor = executor or ThreadExecutor(stage.workers)
                call = make_call(task, stage, executor)
            step_semaphores = tuple(
                group[task.name]
                for group in (semaphores, pipeline_semaphores)
                if task.name in group
            )
            is_plain = not step_semaphores and watchdog is None
            self._steps.append(_Step(task.name, call, step_semaphores, watchdog, is_plain))
        (first, *others) = self._steps
        is_sole = first.is_plain and not others and self._skip_if is None
        self.sole_task: Call | None = first.call if is_sole else None

    def run(self, record: Record, worker: Worker) -> Awaitable[Any]:
        """
        Run the tasks for *record*.

        Returns:
            An awaitable of what the last task returned, of a `Failure`, or of `SKIPPED`. Only the
            sole task may raise an error that fails the item: pass that to `recover()`.
        """
        if self.sole_task is not None and not self._bus.task_subscriptions:
            return self.sole_task(record.value)
        if self._skip_if is None:
            return self._run_from(0, record.value, record, worker)
        return self._run_or_skip(record, worker)

    def recover(self, error: BaseException, record: Record, worker: Worker) -> Awaitable[Any]:
        """Retry or fail *record*, for which the sole task raised *error*; return as `run()`."""
        return self._recover(self._steps[0], record.value, error, record, worker)

    async def _run_or_skip(self, record: Record, worker: Worker) -> Any:
        skipped = await self._check_skip_if(record.value, record)
        if skipped is not None:
            return skipped
        return await self._run_from(0, record.value, record, worker)

    async def _run_from(self, first: int, value: Any, record: Record, worker: Worker) -> Any:
        """Pass *value* through the tasks from index *first* on."""
        for step in self._steps[first:] if first else self._steps:
            worker.task_name = step.name
            try:
                if step.is_plain and not self._bus.task_subscriptions:
                    value = await step.call(value)
                else:
                    value = await self._attempt(step, value, record, worker, record.attempt)
                continue
            except BaseException as error:
                if not is_item_failure(error):
                    raise
                caught = error
            # Outside the except block, or errors of later attempts would have this as context.
            try:
                return await self._recover(step, value, caught, record, worker)
            finally:
                # The traceback of the error refers to this frame and to those that called it. If
                # one of their variables refers to the error, only the garbage collector frees it.
                del caught
        return value

    def _recover(
        self, step: _Step, value: Any, error: BaseException, record: Record, worker: Worker
    ) -> Awaitable[Any]:
        """Retry *step*, which failed with *error*, or let the stage retry, as the policy says."""
        recover = self._retry_task if self._policy.scope == "task" else self._requeue_or_fail
        return recover(step, value, error, record, worker)

    async def _check_skip_if(self, value: Any, record: Record) -> Any:
        """Return `SKIPPED`, or None to run the tasks, or a `Failure`."""
        assert self._skip_if is not None
        try:
            skip = self._skip_if(value)
            if is_awaitable(skip):
                skip = await skip
            return SKIPPED if skip else None
        except BaseException as error:
            if not is_item_failure(error):
                raise
            return Failure(error, "skip_if", record.attempt, retry=False)

    async def _attempt(
        self, step: _Step, value: Any, record: Record, worker: Worker, attempt: int
    ) -> Any:
        """Call *step* once, within its limits, and publish ``start`` and ``complete``."""
        token = None
        if step.semaphores:
            await acquire_all(step.semaphores)
            token = note_held(step.semaphores)
        try:
            if self._bus.task_subscriptions:
                await self._publish("start", step, record, worker, attempt)
                worker.attempt_began = perf_counter()
            if step.watchdog is None:
                value = await step.call(value)
            else:
                value = await drive(as_coroutine(step.call(value)), worker, step.watchdog)
        finally:
            if token is not None:
                release_all(step.semaphores, token)
        duration = _elapsed(worker)
        await self._publish_end("complete", step, record, worker, attempt, duration)
        return value

    async def _retry_task(
        self, step: _Step, value: Any, error: BaseException, record: Record, worker: Worker
    ) -> Any:
        """Retry *step*, which failed with *error*, as the policy allows; then run the rest."""
        retries = Retries(self._policy, Retried(record.id, self._stage_name, step.name))
        attempt = 1
        try:
            while True:
                duration = _elapsed(worker)
                granted, error = await ask_for_retry(retries, error, attempt, step.name)
                if not granted:
                    break
                await self._publish_end("retry", step, record, worker, attempt, duration, error)
                try:
                    await retries.back_off()
                except BaseException as final:
                    if not is_item_failure(final):
                        raise
                    error = final
                    break
                attempt += 1
                worker.attempt = attempt
                try:
                    result = await self._attempt(step, value, record, worker, attempt)
                except BaseException as next_error:
                    if not is_item_failure(next_error):
                        raise
                    error = next_error
                else:
                    return await self._run_from(self._steps.index(step) + 1, result, record, worker)
            await self._publish_end("fail", step, record, worker, attempt, duration, error)
            return Failure(error, step.name, attempt, retry=False)
        finally:
            del error

    async def _requeue_or_fail(
        self, step: _Step, value: Any, error: BaseException, record: Record, worker: Worker
    ) -> Failure:
        """Return a `Failure` that says whether the stage retries, after *step* raised *error*."""
        if record.retries is None:
            retried = Retried(record.id, self._stage_name, self._stage_name)
            record.retries = Retries(self._policy, retried)
        duration = _elapsed(worker)
        granted, error = await ask_for_retry(record.retries, error, record.attempt, step.name)
        event_type: TaskEventType = "retry" if granted else "fail"
        await self._publish_end(event_type, step, record, worker, record.attempt, duration, error)
        return Failure(error, step.name, record.attempt, retry=granted)

    async def _publish_end(
        self,
        event_type: TaskEventType,
        step: _Step,
        record: Record,
        worker: Worker,
        attempt: int,
        duration: float | None,
        error: BaseException | None = None,
    ) -> None:
        # This attempt has no duration if its start was not published, because there was no
        # subscriber yet. Then its end is not published either.
        if duration is not None:
            await self._publish(event_type, step, record, worker, attempt, error, duration)

    async def _publish(
        self,
        event_type: TaskEventType,
        step: _Step,
        record: Record,
        worker: Worker,
        attempt: int,
        error: BaseException | None = None,
        duration: float | None = None,
    ) -> None:
        pending = publish_to(
            self._bus.task_subscriptions,
            TaskEvent(
                record.id,
                self._stage_name,
                step.name,
                worker.name,
                event_type,
                attempt,
                time(),
                error,
                duration,
            ),
        )
        if pending is not None:
            await pending


def _elapsed(worker: Worker) -> float | None:
    """Return the seconds since the current attempt began, or None if that was not published."""
    began, worker.attempt_began = worker.attempt_began, None
    return None if began is None else perf_counter() - began
