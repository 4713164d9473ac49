"""The task group of a block: runs live in it, beside the body of the block."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import TracebackType

from anyio import CancelScope, create_task_group, get_cancelled_exc_class
from anyio.abc import TaskGroup

from .._backend.task_groups import fatal_errors, raise_errors
from .._state.lifecycle import EndReason
from .early_end import raise_for_unexpected_end
from .run import Run
from .signals import handling_signals

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


class RunHost:
    """
    The task group that ``async with`` opens for a pipeline, for ``open()`` and for a stream.

    An exception of the body cancels the runs, and an error that ends a run cancels the body. Either
    is raised as itself, not in a group.

    With *handle_signals*, the first SIGINT or SIGTERM drains the run. It also cancels the body at
    its next await, unless *cancel_on_exit*: then the body is the consumer of what is drained. The
    second signal cancels both, and KeyboardInterrupt is raised.

    Args:
        cancel_on_exit: Whether the run is cancelled when the body ends without an exception. By
            default the exit waits until everything that was fed is finished.
        handle_signals: Whether to handle SIGINT and SIGTERM while the block is open.

    Attributes:
        run: The newest run; None before the first.
        group: The task group.
        is_leaving: Whether the body has ended.
    """

    def __init__(self, *, cancel_on_exit: bool = False, handle_signals: bool = False) -> None:
        self.run: Run | None = None
        self.group: TaskGroup
        self.is_leaving = False
        self._cancel_on_exit = cancel_on_exit
        self._handle_signals = handle_signals
        self._signals: AbstractContextManager[None] | None = None
        # Of the body alone; it exists if signals are handled.
        self._body: CancelScope | None = None
        # Whether the second signal has cancelled the body, or left items unfinished.
        self._is_interrupted = False
        # Runs that were started before `run` and have not ended; and the errors of those that have.
        self._earlier: list[Run] = []
        self._errors: list[BaseException] = []

    def start(self, run: Run) -> None:
        """Start *run*, and let the previous one, if any, end when it is idle."""
        if self.run is not None:
            self.run.finish()
            self._earlier.append(self.run)
        for earlier in [one for one in self._earlier if one.ended.is_set()]:
            self._errors += earlier.take_source_errors()
            self._earlier.remove(earlier)
        self.run = run
        run.begin()
        self.group.start_soon(run.execute)

    async def __aenter__(self) -> RunHost:
        """
        Open the task group.

        Raises:
            PipelineError: Signals are to be handled, and this is not the main thread.
        """
        if self._handle_signals:
            self._signals = handling_signals(self._drain, self._interrupt)
            self._signals.__enter__()
        self.group = create_task_group()
        await self.group.__aenter__()
        if self._handle_signals:
            self._body = CancelScope()
            self._body.__enter__()
        return self

    def _drain(self) -> None:
        if self.run is not None:
            self.run.drain()
        if self._body is not None and not self._cancel_on_exit:
            self._body.cancel()

    def _interrupt(self) -> None:
        is_unfinished = self.run is not None and self.run.completion.unfinished > 0
        self._is_interrupted = is_unfinished or not self.is_leaving
        if self.run is not None:
            self.run.cancel(EndReason.INTERRUPTED)
        self.group.cancel_scope.cancel()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """
        Wait for the end of the runs; if the body raised, cancel them first.

        Raises:
            Exception: What a source raised that no caller of `feed()` waited for.
        """
        self.is_leaving = True
        try:
            error = self._close_body(exc_type, exc, traceback)
            handled = await self._leave(error)
            if self._is_interrupted and (error is None or handled):
                raise KeyboardInterrupt
            if error is not None and error is not exc:
                raise error
            return handled or error is None
        finally:
            # The traceback of each refers to this frame.
            error = exc = traceback = None
            if self._signals is not None:
                self._signals.__exit__(None, None, None)

    def _close_body(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> BaseException | None:
        """Return what the body has raised, without the cancellation by the first signal."""
        if self._body is None:
            return exc
        try:
            return None if self._body.__exit__(exc_type, exc, traceback) else exc
        except BaseException as remaining:
            # trio takes the cancellation out of a group.
            return remaining
        finally:
            del exc, traceback

    async def _leave(self, exc: BaseException | None) -> bool | None:
        if exc is None and self.run is not None:
            if self._cancel_on_exit:
                self.run.cancel()
            else:
                self.run.finish()
        has_raised = exc is not None
        try:
            handled = await self._close_group(exc)
        finally:
            # A cancellation that passes here refers to this frame.
            del exc
        if not has_raised and not self._cancel_on_exit:
            self._raise_for_early_end()
        return handled

    def _raise_for_early_end(self) -> None:
        runs = self._earlier if self.run is None else [*self._earlier, self.run]
        for run in runs:
            self._errors += run.take_source_errors()
        if self._errors:
            raise_errors(self._errors, "several sources raised")
        for run in runs:
            raise_for_unexpected_end(run.state.lifecycle, run.completion)

    async def _close_group(self, exc: BaseException | None) -> bool | None:
        is_error = exc is not None and not isinstance(exc, get_cancelled_exc_class())
        if exc is not None:
            self.group.cancel_scope.cancel()
        handled: bool | None = False
        fatal: list[BaseException] = []
        try:
            # An error of the body is not passed to the group, which would raise it in a group.
            if exc is None or is_error:
                handled = await self.group.__aexit__(None, None, None)
            else:
                handled = await self.group.__aexit__(type(exc), exc, exc.__traceback__)
        except BaseExceptionGroup as errors:
            fatal = fatal_errors(errors)
            if is_error and exc is not None:
                # The body may have been given the error of the run already, by `join()`.
                fatal = [exc, *(one for one in fatal if repr(one) != repr(exc))]
        finally:
            # The traceback of each error refers to this frame.
            del exc
        if fatal:
            raise_errors(fatal, "the run was ended by several errors")
        return False if is_error else handled
