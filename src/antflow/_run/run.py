"""
One execution of a pipeline, from the first item to the last.

Theory of operation
===================

`Run.execute()` is the whole life of a run, in whichever loop task awaits it: the caller's own for
`Pipeline.run()`, a child of a `RunHost` for blocks and entered streams, a background task for a
stream that is iterated without a block. Everything else may be called from other loop tasks
meanwhile. The phases are those of `Phase`:

1. Opening: a task group is opened. Its first child, the keeper, builds the pools and starts the
   first worker of each and the feeder of the source, if there is one.
2. Feeding: the keeper waits in the `CancellationWatch`. Feeders and workers are its siblings, and
   start further workers and back-offs.
3. Draining, for one of two reasons. The run is to end when it is idle, and is idle: `Completion`
   releases the watch, and the keeper closes the first queue; the last worker of each stage closes
   the next. Or `drain()` was called: the feeders stop, and the run ends when it is idle.
4. Cancelling: `cancel()`, too many failures, or a cancellation from outside. Workers take no other
   item; the keeper logs what still runs after a while.
5. Ended: the task group is closed, and so are the queues.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any

from anyio import CancelScope, Event, create_task_group
from anyio.abc import TaskGroup

from .._backend.cancellation_watch import CancellationWatch
from .._backend.context import Host, current_host, host_task
from .._backend.loops import check_loop
from .._backend.task_groups import RunTasks, fatal_errors, raise_fatal
from .._definition.stage import Stage
from .._model.errors import PipelineError
from .._state.lifecycle import Completion, EndReason, Phase
from .._workers.pool import Pool
from .._workers.stragglers import Stragglers
from .._workers.worker_loop import start_workers
from .feeder import Feeder, Feeds
from .wiring import RunPlan, build_pools

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

# The runs that the current loop task belongs to, nested: a task of a run must not wait for itself.
_current_runs: ContextVar[tuple[Run, ...]] = ContextVar("antflow_current_runs", default=())


class Run:
    """
    One execution of a pipeline.

    Attributes:
        state: The state of this run.
        sink: Where the results go, if the run is a stream.
        completion: When everything that was fed is finished.
        ended: Set when `execute()` is over.
    """

    def __init__(self, plan: RunPlan) -> None:
        self.state = state = plan.state
        self.sink = plan.sink
        self.ended = Event()
        self._plan = plan
        notified = [state.lifecycle.stop]
        if plan.watchdog is not None:
            notified.append(plan.watchdog.note_cancellation)
        self._watch = CancellationWatch(*notified)
        self._stragglers = Stragglers()
        self.completion = Completion(state.lifecycle, self._watch)
        self._feeds = Feeds(self.completion, plan.sink)
        # Of the loop tasks that carry items, and of nothing else: it cancels item tasks only.
        self._scope = CancelScope()
        self._group: TaskGroup
        self._host: Host | None = None
        self._pools: list[Pool] = []

    async def execute(self) -> None:
        """
        Open the pools, wait until everything that was fed is finished, and close them.

        It ends after `finish()`, `drain()` or `cancel()`, or by an error.

        Raises:
            PipelineError: A loop task of the run was cancelled from outside.
            BaseException: Any error that is not the failure of an item, such as KeyboardInterrupt:
                as itself, or, if there are several, in one flat group.
        """
        fatal: list[BaseException] = []
        self._host = current_host()
        try:
            with self._scope:
                async with create_task_group() as self._group:
                    self._group.start_soon(self._open_and_watch)
        except BaseExceptionGroup as errors:
            fatal = fatal_errors(errors)
        finally:
            self._close()
        if fatal:
            try:
                raise_fatal(fatal)
            finally:
                del fatal  # The traceback of each refers to this frame.
        unfinished, admitted = self.completion.unfinished, self.completion.admitted
        meant = self.state.lifecycle.was_cancelled or self.state.has_too_many_failures
        if unfinished and not meant:
            # A task group takes the cancellation of a child for its own, and ends without an error.
            raise PipelineError(
                f"the run ended although {unfinished} of {admitted} items were not finished: "
                "something outside antflow cancelled a loop task of the run. Cancel the caller of "
                "run() instead, or a scope around it."
            )

    async def _open_and_watch(self) -> None:
        """
        Open the pools, wait in the watch, and close the first queue when the run is complete.

        No worker begins before the watch waits, because nothing is awaited in between. As long as
        this loop task lives, the group accepts others. (The host of the group must not wait itself:
        on asyncio, a cancellation that reaches it there and then once more in the group is handed
        back to the task around, whose count of cancellations is one too low then.)
        """
        self._open()
        try:
            await self._watch.wait()
            if not self._watch.triggered:
                self._pools[0].queue.inlet.close()
        finally:
            self.state.lifecycle.advance(Phase.DRAINING)
            if self._watch.triggered:
                await self._stragglers.watch()

    def _open(self) -> None:
        """Build the pools, and start the first worker of each and the feeder of the source."""
        lifecycle, plan = self.state.lifecycle, self._plan
        # Without one, a worker inherits what a task has set in the worker that starts it.
        start = partial(self._group.create_task, context=self._context_inside())
        tasks = RunTasks(start, self._scope.cancel)
        self._pools = build_pools(plan, self.completion, tasks, self._stragglers)
        for pool in reversed(self._pools):
            start_workers(pool)
        self._feeds.open(self._pools)
        if plan.source is not None:
            feeder = self._read(plan.source, plan.target, plan.priority)
            feeder.detached = True
            if not lifecycle.takes_input:
                feeder.stop()
        lifecycle.advance(Phase.FEEDING)
        self.completion.is_open = True
        self.completion.check()

    def _close(self) -> None:
        # After the group: a worker that is being cancelled must not find its queue broken.
        for pool in self._pools:
            pool.queue.close()
        # These refer to the run, and would be a reference cycle.
        self._pools.clear()
        self._host = None
        self.state.end()
        self._feeds.close()
        self.completion.close()
        self.ended.set()
        if self.sink is not None:
            self.sink.wake()

    def _read(
        self, source: Iterable[Any] | AsyncIterable[Any], target: int, priority: float
    ) -> Feeder:
        feeder = self._feeds.add(source, target, priority)
        # The source is the caller's: it runs in the context of the caller.
        self._group.create_task(self._feeds.run(feeder), context=self._context_inside())
        return feeder

    def _context_inside(self) -> Context:
        context = copy_context()
        context.run(_current_runs.set, (*_current_runs.get(), self))
        context.run(host_task.set, self._host)
        return context

    @property
    def called_from_run(self) -> bool:
        """Whether the caller is a task or callback of this run, or waits inside one."""
        return any(run is self for run in _current_runs.get())

    async def feed(
        self, source: Iterable[Any] | AsyncIterable[Any], target: int, priority: float, hint: str
    ) -> int:
        """
        Read *source* into the stage with the index *target*.

        A caller inside the run does not wait for room, which may depend on the caller itself: the
        rest is read when there is room.

        Returns:
            How many items were admitted: fewer than there are if the run was shut down meanwhile,
            or, inside the run, so far.

        Raises:
            PipelineError: The run takes no more input, or belongs to another loop.
            Exception: What *source* raised; the items before it are processed all the same.
        """
        check_loop(self._host, "feed")
        self.completion.expect_feed()
        try:
            await self._feeds.opened.wait()
            if not self.state.lifecycle.takes_input:
                raise PipelineError(f"feed(): the run was shut down, and takes no more. {hint}")
            feeder = self._read(source, target, priority)
        finally:
            self.completion.pending_feeds -= 1
            self.completion.check()
        return await self._feeds.wait_for(feeder, to_end=not self.called_from_run)

    async def join(self) -> None:
        """
        Wait until everything that was fed is finished, and no source is being read.

        Raises:
            PipelineError: It would wait for the caller itself, or belongs to another loop.
        """
        check_loop(self._host, "join")
        if self.called_from_run:
            raise PipelineError(
                "join() was called by a task or callback of the run that it would wait for, which "
                "would wait for itself. Call it outside."
            )
        if self.sink is not None and not self.ended.is_set():
            raise PipelineError(
                "join(): a stream is finished by its consumer. Iterate to the end, or call "
                "shutdown() and then iterate to the end."
            )
        if not self.ended.is_set():  # its events belong to a loop, which may have ended as well
            await self.completion.idle.wait()

    def finish(self) -> None:
        """End as soon as everything that was fed is finished, and no source is being read."""
        self.completion.finish_when_idle()

    def drain(self) -> None:
        """Read no further, and end as soon as what was read is finished."""
        self.state.lifecycle.advance(Phase.DRAINING, EndReason.SHUT_DOWN)
        self._feeds.stop()
        self.finish()

    def cancel(self, reason: EndReason = EndReason.CANCELLED) -> None:
        """End at once."""
        self.drain()
        self.state.lifecycle.advance(Phase.CANCELLING, reason)
        self._scope.cancel()

    async def shutdown(self, *, drain: bool = True) -> None:
        """
        `drain()` or `cancel()`, and wait for the end.

        A task or callback of the run itself does not wait, and nobody waits for a stream to be
        drained, because that depends on its consumer.
        """
        check_loop(self._host, "shutdown")
        if self.ended.is_set():
            return
        if drain:
            self.drain()
        else:
            self.cancel()
        if not self.called_from_run and not (drain and self.sink is not None):
            await self.ended.wait()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The definitions of the stages."""
        return tuple(state.stage for state in self.state.stages)

    def raise_for_early_end(self) -> None:
        """
        Raise if a source or `cancel()` ended the run early.

        Raises:
            KeyboardInterrupt: A second signal left items unfinished.
            PipelineError: `cancel()` left items unfinished.
            Exception: What a source raised for which nobody waited.
        """
        unfinished = self.completion.unfinished
        if self.state.lifecycle.reason is EndReason.INTERRUPTED and unfinished:
            raise KeyboardInterrupt
        self.raise_source_error()
        if self.state.lifecycle.was_cancelled and unfinished:
            raise PipelineError(
                "the run was ended by shutdown(drain=False) before everything was finished: "
                f"{unfinished} of {self.completion.admitted} items that were read."
            )

    def raise_source_error(self) -> None:
        """Raise, once, what the source that the run was opened with has raised."""
        self._feeds.raise_source_error()
