"""One execution: opens the streams and the task group, wires the pools, and closes it all."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable, Mapping
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any

from anyio import CancelScope, Event, create_task_group
from anyio.abc import TaskGroup

from .._backend.cancellation import current_asyncio_task, host_task
from .._backend.cancellation_watch import CancellationWatch
from .._backend.task_groups import fatal_errors, raise_fatal
from .._definition.limits import TaskLimits
from .._definition.stage import Stage
from .._events.event_bus import EventBus
from .._model.errors import PipelineError
from .._model.items import DEFAULT_PRIORITY
from .._state.run_state import RunState
from .._state.worker import Worker
from .._tasks.task_runner import TaskRunner
from .._tasks.watchdog import Watchdog
from .._workers.pool import Pool, StageCallbacks
from .._workers.queues import open_queue
from .._workers.result_sink import ResultSink
from .._workers.stragglers import Stragglers
from .._workers.worker_loop import back_off, work
from .feeder import Feeder

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

# The runs that the present task belongs to, one inside of the other: a task of a run must not wait
# for what waits for itself.
_present_runs: ContextVar[tuple[Run, ...]] = ContextVar("antflow_present_runs", default=())


class Run:
    """
    One execution of a pipeline, from the first item to the last.

    `conduct()` is its whole life, in whichever task that is. All else may be called from other
    tasks meanwhile.

    Args:
        state: The books of this run, one entry for each stage.
        bus: Where events are published.
        hooks: Those who are told of successes and failures, one entry for each stage.
        limits: By task name, how many attempts may run at the same time in all stages together.
        sink: Where the outcome of each item goes, if the run is a stream.
        source: What to feed from the start, if anything.
        target: The number of the stage that *source* goes to, from 0.
        priority: Goes with the items of *source*.
        guard: If given, what the tasks are watched for.

    Attributes:
        ended: Set when `conduct()` is over.
        draining: Whether it takes no more input.
        cancelled: Whether `cancel()` was called.
        interrupted: Whether that was because of a signal.
    """

    def __init__(
        self,
        state: RunState,
        bus: EventBus,
        hooks: tuple[StageCallbacks, ...],
        limits: Mapping[str, int],
        sink: ResultSink | None = None,
        source: Iterable[Any] | AsyncIterable[Any] | None = None,
        target: int = 0,
        priority: float = DEFAULT_PRIORITY,
        guard: Watchdog | None = None,
    ) -> None:
        self.state = state
        self.sink = sink
        self.ended = Event()
        self.draining = False
        self.cancelled = False
        self.interrupted = False
        self._bus = bus
        self._hooks = hooks
        self._limits = TaskLimits(limits)
        self._source = source
        self._target = target
        self._priority = priority
        self._source_error: BaseException | None = None
        self._finishing = False
        self._wired = Event()
        self._guard = guard
        alarms = [state.stop] if guard is None else [state.stop, guard.alarm]
        self._sentry = CancellationWatch(*alarms)
        self._overtime = Stragglers()
        # Set while nothing is under way and nobody feeds; a new one each time that this ends.
        self._idle = Event()
        # Of the tasks that carry items, and of nothing else: cancelling it hurts no bystander.
        self._scope = CancelScope()
        self._group: TaskGroup
        self._context = Context()
        self._host: Any = None
        self._pools: list[Pool] = []
        self._feeders: set[Feeder] = set()
        # How many calls of `feed()` wait for the pools to be there.
        self._pending_feeds = 0
        self._streams: list[Any] = []
        state.on_idle = self._check_idle

    # ---- its life

    async def execute(self) -> None:
        """
        Open the pools, wait until all is done that was fed, and close them.

        It ends after `finish()`, `drain()` or `cancel()`, or if an error ends it.

        Raises:
            PipelineError: A task of the run was cancelled from outside.
            BaseException: What is no failure of an item, such as KeyboardInterrupt: by itself, or,
                if there are several, in one flat group.
        """
        fatal: list[BaseException] = []
        self._host = current_asyncio_task()
        try:
            with self._scope:
                async with create_task_group() as self._group:
                    self._group.start_soon(self._keep_open)
        except BaseExceptionGroup as errors:
            fatal = fatal_errors(errors)
        finally:
            # Not before the group is done: a worker that is being cancelled must not find its
            # stream broken.
            for stream in self._streams:
                stream.close()
            # These know the run: without them nothing goes round in circles.
            self._pools.clear()
            self._feeders.clear()
            self._context = Context()
            self._host = None
            self.state.end()
            self._wired.set()
            self._idle.set()
            self.ended.set()
            if self.sink is not None:
                self.sink.wake()
        try:
            raise_fatal(fatal)
        finally:
            # Each of these is in the traceback that now leads here.
            del fatal
        if self.state.unfinished and not self.cancelled and not self.state.too_many:
            # A task group takes the cancellation of a child for its own, and ends without a word.
            raise PipelineError(
                f"the run ended although {self.state.unfinished} of {self.state.admitted} items "
                "were not finished: something outside antflow cancelled a task of the run. Cancel "
                "the caller of run() instead, or a scope around it."
            )

    async def _keep_open(self) -> None:
        """
        Open the pools, and live until the run takes no more input.

        No worker begins before the sentry stands, since nothing waits in between. As long as this
        task lives, the group can be given others. (The host of the group must not await this
        itself: on asyncio, a cancellation that reaches it there and then once more in the group is
        given back to the task around, which then counts one too few.)
        """
        self._wire()
        try:
            await self._sentry.stand()
        finally:
            self.draining = True
            if self._sentry.alarmed:
                await self._overtime.watch()

    def _wire(self) -> None:
        """Build the pools from the last stage to the first, and start them."""
        # New workers are started by workers: without this, they would inherit the context variables
        # that tasks set there, instead of those of the caller.
        self._context = self._context_inside()
        downstream: Pool | None = None
        for stage_state, hooks in zip(reversed(self.state.stages), reversed(self._hooks)):
            send, receive, entrance, places = open_queue(stage_state.stage)
            self._streams += (send, receive)
            downstream = Pool(
                state=self.state,
                stage_state=stage_state,
                bus=self._bus,
                hooks=hooks,
                runner=TaskRunner(stage_state.stage, self._bus, self._limits, self._guard),
                stream=receive,
                entrance=entrance,
                places=places,
                downstream=downstream,
                sink=self.sink,
                stragglers=self._overtime,
                start_worker=self._start_worker,
                start_back_off=partial(self._start, back_off),
                stop=self._scope.cancel,
            )
            if downstream.downstream is not None:
                downstream.downstream.room += stage_state.stage.workers
            self._pools.insert(0, downstream)
            downstream.grow()
        if self._source is not None:
            feeder = self._feed_from(self._source, self._target, self._priority)
            feeder.detached = True
            if self.draining:
                feeder.stop()
        self._wired.set()
        self._check_idle()

    def _start(self, function: Any, *args: Any) -> None:
        self._group.create_task(function(*args), context=self._context)

    def _start_worker(self, pool: Pool, worker: Worker) -> None:
        # The task is named like the worker, for debuggers and instruments of the loop.
        self._group.create_task(work(pool, worker), name=worker.name, context=self._context)

    def _feed_from(
        self, source: Iterable[Any] | AsyncIterable[Any], target: int, priority: float
    ) -> Feeder:
        if priority != DEFAULT_PRIORITY:
            for pool in self._pools:
                pool.use_priorities()
        sink = None if self.sink is None or self.sink.window is None else self.sink
        feeder = Feeder(source, self._pools[target], priority, sink, self._start)
        self._feeders.add(feeder)
        # The source belongs to the caller: it sees the context of its own.
        self._group.create_task(self._run_feeder(feeder), context=self._context_inside())
        return feeder

    def _context_inside(self) -> Context:
        context = copy_context()
        context.run(_present_runs.set, (*_present_runs.get(), self))
        context.run(host_task.set, self._host)
        return context

    @property
    def called_from_run(self) -> bool:
        """Whether the caller is a task or callback of this run, or waits inside of one."""
        return any(run is self for run in _present_runs.get())

    async def _run_feeder(self, feeder: Feeder) -> None:
        try:
            await feeder.run()
        finally:
            if feeder.detached and self._source_error is None:
                self._source_error, feeder.error = feeder.error, None
            self._feeders.discard(feeder)
            self._check_idle()

    def _check_idle(self) -> None:
        """See whether all is done that was fed: called whenever that may have become true."""
        if self.ended.is_set() or not self._wired.is_set():
            return
        if self.state.unfinished or self._feeders or self._pending_feeds:
            return
        self._idle.set()
        if self._finishing:
            # From here on the end goes from stage to stage: the last worker closes the next one.
            self.draining = True
            self._sentry.relieve()
            self._pools[0].entrance.close()

    # ---- what others may do meanwhile

    async def feed(
        self, source: Iterable[Any] | AsyncIterable[Any], target: int, priority: float, hint: str
    ) -> int:
        """
        Read *source* into the stage with the number *target*.

        Whoever calls it from inside of the run does not wait for room, which may be what he holds:
        the rest is read when there is some.

        Returns:
            How many items were admitted: fewer than there are if the run was shut down meanwhile,
            or, inside of the run, so far.

        Raises:
            PipelineError: The run takes no more input.
            Exception: What *source* raised; what came before is on its way.
        """
        self._pending_feeds += 1
        if self._idle.is_set() and not self.ended.is_set():
            # From here on, before the first await: who calls `join()` meanwhile waits for this.
            self._idle = Event()
        try:
            await self._wired.wait()
            if self.draining:
                raise PipelineError(f"feed(): the run was shut down, and takes no more. {hint}")
            feeder = self._feed_from(source, target, priority)
        finally:
            self._pending_feeds -= 1
            self._check_idle()
        try:
            await (feeder.paused if self.called_from_run else feeder.done).wait()
        except BaseException:
            if feeder.stop():
                with CancelScope(shield=True):
                    await feeder.done.wait()
            raise
        feeder.detached = not feeder.done.is_set()
        error, feeder.error = feeder.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return feeder.admitted

    async def join(self) -> None:
        """
        Wait until nothing is under way and nobody feeds.

        Raises:
            PipelineError: It would wait for the caller itself.
        """
        if self.called_from_run:
            raise PipelineError(
                "join() was called by a task or callback of the run that it would wait for, which "
                "would wait for itself. Call it outside."
            )
        if self.sink is not None and not self.ended.is_set():
            raise PipelineError(
                "join(): a stream is finished by the one who iterates over it. Iterate to the end, "
                "or call shutdown() and then iterate to the end."
            )
        await self._idle.wait()

    def finish(self) -> None:
        """End as soon as nothing is under way and nobody feeds."""
        self._finishing = True
        self._check_idle()

    def drain(self) -> None:
        """Read no further, and end as soon as nothing is under way."""
        self.draining = True
        for feeder in self._feeders:
            feeder.stop()
        self.finish()

    def cancel(self) -> None:
        """End at once."""
        self.cancelled = True
        self.drain()
        self._scope.cancel()

    async def shutdown(self, *, drain: bool = True) -> None:
        """
        `drain()` or `cancel()`, and wait for the end.

        A task or callback of the run itself does not wait, and nobody waits for a stream to be
        drained, since that is in the hands of its consumer.
        """
        if self.ended.is_set():
            return
        if drain:
            self.drain()
        else:
            self.cancel()
        if not self.called_from_run and not (drain and self.sink is not None):
            await self.ended.wait()

    @property
    def busy(self) -> bool:
        """Whether anything is under way, or anybody feeds."""
        return not self._idle.is_set()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The definition of what runs."""
        return tuple(state.stage for state in self.state.stages)

    def raise_if_cut_short(self) -> None:
        """Raise if `cancel()` left something unfinished."""
        if self.cancelled and self.state.unfinished:
            raise PipelineError(
                "the run was ended by shutdown(drain=False) before all was finished: "
                f"{self.state.unfinished} of {self.state.admitted} items that were read."
            )

    def raise_source_error(self) -> None:
        """Raise, once, what the source that the run was opened with has raised."""
        error, self._source_error = self._source_error, None
        try:
            if error is not None:
                raise error
        finally:
            # The traceback leads here, too.
            del error
