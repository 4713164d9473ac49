"""
One execution of a pipeline.

Theory of operation
===================

`Run.execute()` is the whole life of a run. It runs in the loop task that awaits it: the caller's
own for `Pipeline.run()`, a child of a `RunHost` for blocks and entered streams, a background loop
task for a stream that is iterated without a block. Meanwhile, other loop tasks may call the other
methods. The phases are those of `Phase`:

1. Opening: a task group is opened. Its first child, the watcher, builds the pools. It starts the
   first worker of each and, if there is a source, its feeder.
2. Feeding: the watcher waits in the `CancellationWatch`. Feeders and workers are its siblings.
   Workers start further workers and the loop tasks of back-offs.
3. Draining, in one of two ways. A run that is to end when idle becomes idle: `Completion` releases
   the watch, and the watcher closes the first queue; the last worker of each stage closes the next
   queue. Or `drain()` is called: the feeders stop, and the same follows when the run is idle.
4. Cancelling: by `cancel()`, too many failures, or a cancellation from outside. Workers take no
   further item. The watcher logs which workers still run after some seconds.
5. Ended: the task group has ended, and the queues are closed.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from anyio import CancelScope, Event, create_task_group
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled

from .._backend.cancellation_watch import CancellationWatch
from .._backend.context import Host, RunToken, current_host, host_task, memberships
from .._backend.loops import check_loop
from .._backend.task_groups import RunTasks, fatal_errors, raise_errors
from .._model.errors import PipelineError
from .._state.lifecycle import Completion, EndReason, Phase
from .._workers.pool import Pool
from .._workers.stragglers import Stragglers
from .._workers.worker_loop import start_workers
from .early_end import raise_for_early_end, raise_for_unexpected_end
from .feeder import Feeder
from .feeds import Feeds
from .wiring import RunPlan, build_pools

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


class Run:
    """
    One execution of a pipeline.

    Attributes:
        state: The state of this run.
        sink: Where the results go, if the run is a stream.
        completion: Knows when everything that was fed is finished.
        ended: Set when `execute()` has closed the run.
    """

    def __init__(self, plan: RunPlan) -> None:
        self.state = state = plan.state
        self.sink = plan.sink
        self.ended = Event()
        self.bus = plan.bus
        self._plan: RunPlan | None = plan
        self._token = RunToken(self)
        on_cancel = [state.lifecycle.stop]
        if plan.watchdog is not None:
            on_cancel.append(plan.watchdog.note_cancellation)
        self._watch = CancellationWatch(*on_cancel)
        self._stragglers = Stragglers()
        self.completion = Completion(state.lifecycle, self._watch)
        self._feeds = Feeds(self.completion, plan.sink)
        # Of the loop tasks that carry items, and of nothing else: it cancels item tasks only. It is
        # made when the run begins, because that needs an event loop.
        self._scope: CancelScope | None = None
        self._group: TaskGroup
        self._host: Host | None = None
        self._pools: list[Pool] = []

    def begin(self) -> None:
        """Note that the current loop task starts the run, which another one may have defined."""
        self._token.begin()

    async def execute(self) -> None:
        """
        Open the run, wait until everything that was fed is finished, and close the run.

        It ends after `finish()`, `drain()` or `cancel()`, or with an error.

        Raises:
            PipelineError: Something outside antflow cancelled a loop task of the run.
            BaseException: An error that is not the failure of an item, such as KeyboardInterrupt.
                Several such errors are raised in one flat group.
        """
        fatal: list[BaseException] = []
        self._host = current_host()
        self._scope = CancelScope()
        if self.state.lifecycle.is_stopping:
            self._scope.cancel()
        try:
            with self._scope:
                async with create_task_group() as self._group:
                    self._group.start_soon(self._open_and_watch)
        except BaseExceptionGroup as errors:
            fatal = fatal_errors(errors)
            self.state.lifecycle.advance(Phase.CANCELLING, EndReason.ERROR)
        finally:
            self._close()
        if fatal:
            raise_errors(fatal, "the run was ended by several errors")
        if self.completion.is_cut_short:
            raise_for_unexpected_end(self.state.lifecycle, self.completion)

    async def _open_and_watch(self) -> None:
        """
        Open the pools, wait in the watch, and close the first queue when the run is complete.

        No worker begins before the watch waits, because nothing is awaited in between. While this
        loop task lives, the group stays open for others. (The host of the group must not wait in
        the watch itself: on asyncio, a cancellation that reaches it there, and again in the group,
        would leave `Task.cancelling()` of the caller's task one too low.)
        """
        self._open()
        try:
            await self._watch.wait()
            self._pools[0].queue.inlet.close()
        finally:
            self.state.lifecycle.advance(Phase.DRAINING)
            if self._watch.triggered:
                await self._stragglers.watch()

    def _open(self) -> None:
        """Build the pools, and start the first worker of each and the feeder of the source."""
        lifecycle, plan, scope = self.state.lifecycle, self._plan, self._scope
        assert plan is not None and scope is not None  # noqa: PT018
        # Workers are started by workers. Without a context given here, a new one would inherit the
        # context variables that a task has set, in place of those of the caller.
        start = partial(self._group.create_task, context=self._run_context())
        tasks = RunTasks(start, scope.cancel)
        self._pools = build_pools(plan, self.completion, self._token, tasks, self._stragglers)
        for pool in reversed(self._pools):
            start_workers(pool)
        self._feeds.open(self._pools)
        self._watch.callbacks.append(self._feeds.note_cancellation)
        if plan.source is not None:
            feeder = self._start_feeder(plan.source, plan.target, plan.priority)
            feeder.detached = True
            if not lifecycle.takes_input:
                feeder.stop()
        lifecycle.advance(Phase.FEEDING)
        self.completion.is_open = True
        self.completion.check_idle()

    def _close(self) -> None:
        # After the group: a worker that is being cancelled must not find its queue broken.
        for pool in self._pools:
            pool.queue.close()
        # What refers to the run, or is of no use any more, such as the source.
        self._pools.clear()
        self._token.run = self._plan = None
        self._watch.callbacks.clear()
        self._host = None
        self.state.lifecycle.advance(Phase.ENDED)
        for worker in (one for stage in self.state.stages for one in stage.workers):
            worker.record = None
        self._feeds.close()
        self.completion.close()
        self.ended.set()
        if self.sink is not None:
            self.sink.wake()

    def _start_feeder(
        self, source: Iterable[Any] | AsyncIterable[Any], target: int, priority: float
    ) -> Feeder:
        feeder = self._feeds.add(source, target, priority)
        # The source is the caller's code: it runs in the context of the caller.
        self._group.create_task(self._feeds.run(feeder), context=self._run_context())
        return feeder

    def _run_context(self) -> Context:
        context = copy_context()
        context.run(host_task.set, self._host)
        return context

    @property
    def called_from_run(self) -> bool:
        """Whether the caller is a task or callback of this run, or is awaited by one."""
        return any(token is self._token and inside for token, inside in memberships())

    async def feed(
        self, source: Iterable[Any] | AsyncIterable[Any], target: int, priority: float, hint: str
    ) -> int:
        """
        Read *source* into the stage with the index *target*.

        A caller inside the run does not wait for room, because the room may depend on the caller
        itself: the rest is read when there is room.

        Returns:
            How many items were admitted: fewer than there are if the run was shut down meanwhile,
            none if a task of the run feeds it after that, or, inside the run, so far.

        Raises:
            PipelineError: The run takes no more input, and the caller does not belong to it.
            Exception: What *source* raised; the items before it are processed all the same.
        """
        check_loop(self._host, "feed")
        self.completion.expect_feed()
        try:
            await self._feeds.opened.wait()
            if not self.state.lifecycle.takes_input:
                if any(token is self._token for token, _ in memberships()):
                    return 0
                # A signal that drains the run also cancels the body of its block, which may feed.
                await checkpoint_if_cancelled()
                raise PipelineError(f"feed(): the run was shut down, and takes no more. {hint}")
            feeder = self._start_feeder(source, target, priority)
        finally:
            self.completion.pending_feeds -= 1
            self.completion.check_idle()
        return await self._feeds.wait_for(feeder, to_end=not self.called_from_run)

    async def join(self) -> None:
        """
        Wait until everything that was fed is finished, and no source is being read.

        Raises:
            PipelineError: The call would wait for its own caller.
        """
        check_loop(self._host, "join")
        if self.called_from_run:
            raise PipelineError(
                "join() was called by a task or callback of the run, and would wait for itself. "
                "Call it outside the run."
            )
        if self.sink is not None and not self.ended.is_set():
            raise PipelineError(
                "join() would wait for the consumer of the stream. Iterate to the end, or call "
                "shutdown() and then iterate to the end."
            )
        if not self.ended.is_set():  # its events belong to a loop, which may have ended as well
            await self.completion.idle.wait()
        if self.ended.is_set() and self.completion.is_cut_short:
            raise_for_unexpected_end(self.state.lifecycle, self.completion)

    def finish(self) -> None:
        """End as soon as everything that was fed is finished, and no source is being read."""
        self.completion.finish_when_idle()

    def drain(self) -> None:
        """Stop reading, and end as soon as what was read is finished."""
        self.state.lifecycle.advance(Phase.DRAINING, EndReason.SHUT_DOWN)
        self._feeds.stop()
        self.finish()

    def cancel(self, reason: EndReason = EndReason.CANCELLED) -> None:
        """Stop reading, and cancel all loop tasks of the run."""
        self.drain()
        if self.completion.idle.is_set():
            # There is nothing to cancel, and workers that are not cancelled leave no cycle behind.
            return
        self.state.lifecycle.advance(Phase.CANCELLING, reason)
        if self._scope is not None:
            self._scope.cancel()

    async def shutdown(self, *, drain: bool = True) -> None:
        """
        `drain()` or `cancel()`, and wait for the end.

        A task or callback of the run itself does not wait. Nor does a call that drains a stream,
        because that depends on the consumer of the stream.
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

    def take_source_errors(self) -> list[BaseException]:
        """Return, once, what sources raised that no caller of `feed()` waited for."""
        errors, self._feeds.errors = self._feeds.errors, []
        return errors

    def raise_for_early_end(self) -> None:
        """Raise if something ended the run early: see `raise_for_early_end()`."""
        if self.completion.is_cut_short or self._feeds.errors:
            raise_for_early_end(self.state.lifecycle, self.completion, self.take_source_errors())
