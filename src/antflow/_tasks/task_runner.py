"""Takes one item through the tasks of one stage: limits, attempts, time-outs, task events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from time import perf_counter, time
from types import CoroutineType
from typing import Any

from anyio import CapacityLimiter, Semaphore, current_time, move_on_after, to_thread
from attrs import define, frozen

from .._backend.cancellation import is_item_failure
from .._definition.callables import is_async, is_awaitable, task_name
from .._definition.limits import TaskLimits, acquire_all, release_all
from .._definition.retry_policy import Retries
from .._definition.stage import Stage, Task
from .._events.event_bus import EventBus, publish_to
from .._model.events import TaskEvent, TaskEventType
from .._model.items import Record
from .._state.worker import Worker
from .watchdog import Watchdog, drive

Call = Callable[[Any], Awaitable[Any]]


@define(eq=False)
class Failure:
    """
    Why an item did not get through its stage this time.

    It is returned, not raised, so that a task may return any exception as its value.
    """

    error: BaseException
    task_name: str
    attempts: int
    # The item goes back to the queue of its stage, once `Record.retries` has backed off.
    again: bool


@frozen(eq=False)
class _Step:
    name: str
    call: Call
    limits: tuple[Semaphore, ...]
    # Given if each call is driven by hand.
    guard: Watchdog | None
    # Whether there is nothing to do but to call it, as long as nobody hears of it.
    is_plain: bool


# What the runner returns for an item that skip_if lets pass.
SKIPPED = object()


class TaskRunner:
    """
    The tasks of one stage, made ready for one run.

    Attributes:
        sole_task: The one task of the stage, if nothing need be done but to call it, as long as
            nobody hears of its attempts. Who calls it brings what it raises to `recover()`.
    """

    __slots__ = ("_bus", "_policy", "_skip_if", "_stage_name", "_steps", "sole_task")

    def __init__(
        self,
        stage: Stage,
        bus: EventBus,
        pipeline_limits: TaskLimits,
        guard: Watchdog | None = None,
    ) -> None:
        self._bus = bus
        self._stage_name = stage.name
        self._skip_if = stage.skip_if
        self._policy = stage.retry_policy
        limits = TaskLimits(stage.task_concurrency_limits)
        limiter = CapacityLimiter(stage.workers)
        self._steps = []
        for task in stage.tasks:
            name = task_name(task)
            held = limits.of(name) + pipeline_limits.of(name)
            call = _adapt(task, stage, limiter)
            self._steps.append(_Step(name, call, held, guard, not held and guard is None))
        (first, *others) = self._steps
        is_sole = first.is_plain and not others and self._skip_if is None
        self.sole_task: Call | None = first.call if is_sole else None

    def run(self, record: Record, worker: Worker) -> Awaitable[Any]:
        """
        Take *record* through the tasks.

        Returns:
            What is to be awaited for that: it gives what the last task returned, or a `Failure`, or
            `SKIPPED`. Only a sole task may raise: bring that to `recover()`.
        """
        if self.sole_task is not None and not self._bus.task_subscriptions:
            return self.sole_task(record.value)
        if self._skip_if is None:
            return self._run_from(0, record.value, record, worker)
        return self._run_or_skip(record, worker)

    def recover(self, error: BaseException, record: Record, worker: Worker) -> Awaitable[Any]:
        """Do for *record*, for which the sole task raised *error*, what `run()` would have done."""
        return self._recover(self._steps[0], record.value, error, record, worker)

    async def _run_or_skip(self, record: Record, worker: Worker) -> Any:
        verdict = await self._shall_skip(record.value, record)
        if verdict is not None:
            return verdict
        return await self._run_from(0, record.value, record, worker)

    async def _run_from(self, first: int, value: Any, record: Record, worker: Worker) -> Any:
        """Take *value* through the tasks from number *first* on."""
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
            # Outside the except block: what later attempts raise must not have this as context.
            try:
                return await self._recover(step, value, caught, record, worker)
            finally:
                # The traceback of the error holds this frame and those that called it: no variable
                # of theirs may hold the error, or only the garbage collector would free it.
                del caught
        return value

    def _recover(
        self, step: _Step, value: Any, error: BaseException, record: Record, worker: Worker
    ) -> Awaitable[Any]:
        """Return what becomes of the item after *step* failed with *error*, to be awaited."""
        recover = self._retry_task if self._policy.scope == "task" else self._requeue_or_fail
        return recover(step, value, error, record, worker)

    async def _shall_skip(self, value: Any, record: Record) -> Any:
        """Return `SKIPPED`, or None to go on, or a `Failure`."""
        assert self._skip_if is not None
        try:
            skip = self._skip_if(value)
            if is_awaitable(skip):
                skip = await skip
            return SKIPPED if skip else None
        except BaseException as error:
            if not is_item_failure(error):
                raise
            return Failure(error, "skip_if", record.attempt, again=False)

    async def _attempt(
        self, step: _Step, value: Any, record: Record, worker: Worker, attempt: int
    ) -> Any:
        """Run *step* once, under its limits, with its events for start and completion."""
        if step.limits:
            await acquire_all(step.limits)
        try:
            if self._bus.task_subscriptions:
                await self._publish("start", step, record, worker, attempt)
                worker.attempt_began = perf_counter()
            if step.guard is None:
                value = await step.call(value)
            else:
                value = await drive(_coroutine(step.call(value)), worker, step.guard)
        finally:
            if step.limits:
                release_all(step.limits)
        duration = _elapsed(worker)
        await self._publish_end("complete", step, record, worker, attempt, duration)
        return value

    async def _retry_task(
        self, step: _Step, value: Any, error: BaseException, record: Record, worker: Worker
    ) -> Any:
        """Repeat *step*, which failed with *error*, as the policy grants it; then do the rest."""
        retries = Retries(self._policy, step.name)
        attempt = 1
        try:
            while True:
                duration = _elapsed(worker)
                granted, error = await _ask(retries, error, attempt)
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
                try:
                    result = await self._attempt(step, value, record, worker, attempt)
                except BaseException as again:
                    if not is_item_failure(again):
                        raise
                    error = again
                else:
                    downstream = self._steps.index(step) + 1
                    return await self._run_from(downstream, result, record, worker)
            await self._publish_end("fail", step, record, worker, attempt, duration, error)
            return Failure(error, step.name, attempt, again=False)
        finally:
            del error

    async def _requeue_or_fail(
        self, step: _Step, value: Any, error: BaseException, record: Record, worker: Worker
    ) -> Failure:
        """Say whether the item may go through the stage again, after *step* failed with *error*."""
        if record.retries is None:
            record.retries = Retries(self._policy, self._stage_name)
        duration = _elapsed(worker)
        granted, error = await _ask(record.retries, error, record.attempt)
        event_type: TaskEventType = "retry" if granted else "fail"
        await self._publish_end(event_type, step, record, worker, record.attempt, duration, error)
        return Failure(error, step.name, record.attempt, again=granted)

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
        # Whoever subscribed while the attempt was under way hears of the next one first: nothing
        # took the time of this one.
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
    """Return the seconds since the attempt that ends now began, if its start was published."""
    began, worker.attempt_began = worker.attempt_began, None
    return None if began is None else perf_counter() - began


async def _ask(retries: Retries, error: BaseException, attempt: int) -> tuple[bool, BaseException]:
    """Return whether another attempt is granted, and the error that counts if it is not."""
    if not isinstance(error, Exception):
        return False, error
    try:
        return await retries.granted(error, attempt), error
    except BaseException as hook_error:
        if not is_item_failure(hook_error):
            raise
        # The user's retry hook is broken: that is what they must see, with its occasion.
        # Past the error's own class: it may be frozen.
        BaseException.__setattr__(hook_error, "__context__", error)
        return False, hook_error


def _coroutine(awaitable: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    return awaitable if isinstance(awaitable, CoroutineType) else _await(awaitable)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _adapt(task: Task, stage: Stage, limiter: CapacityLimiter) -> Call:
    """Make *task* a coroutine function of one argument, with the options of its stage."""
    call: Callable[..., Awaitable[Any]] = task if is_async(task) else _threaded(task, limiter)
    if stage.unpack_args:
        call = _unpacking(call)
    if stage.task_timeout is not None:
        call = _timed(call, stage.task_timeout, f"task {task_name(task)!r} of stage {stage.name!r}")
    return call


def _threaded(task: Task, limiter: CapacityLimiter) -> Callable[..., Awaitable[Any]]:
    def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any]:
        # In a tuple, because trio refuses to bring a coroutine back from a thread.
        return (task(*args, **kwargs),)

    async def call_in_thread(*args: Any, **kwargs: Any) -> Any:
        (result,) = await to_thread.run_sync(call, args, kwargs, limiter=limiter)
        return await result if is_awaitable(result) else result

    return call_in_thread


def _unpacking(call: Callable[..., Awaitable[Any]]) -> Call:
    async def call_unpacked(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return await call(*value)
        if isinstance(value, dict):
            return await call(**value)
        return await call(value)

    return call_unpacked


def _timed(call: Call, seconds: float, what: str) -> Call:
    async def call_with_timeout(value: Any) -> Any:
        with move_on_after(seconds) as scope:
            value = await call(value)
        # Not `cancelled_caught`: a thread or a task that does not await cannot be interrupted, but
        # its result came too late.
        if scope.cancel_called or current_time() >= scope.deadline:
            raise TimeoutError(f"{what} took longer than its task_timeout of {seconds} s")
        return value

    return call_with_timeout
