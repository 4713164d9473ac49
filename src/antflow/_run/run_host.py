"""The task group of a block: runs live in it, beside the body of the block."""

from __future__ import annotations

import sys
from types import TracebackType

from anyio import create_task_group, get_cancelled_exc_class
from anyio.abc import TaskGroup

from .._backend.task_groups import fatal_errors, raise_errors
from .early_end import raise_for_unexpected_end
from .run import Run

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


class RunHost:
    """
    The task group that ``async with`` opens for a pipeline, for ``open()`` and for a stream.

    An exception of the body cancels the runs, and an error that ends a run cancels the body. Either
    is raised as itself, not in a group.

    Args:
        cancel_on_exit: Whether the run is cancelled when the body ends without an exception. By
            default the exit waits until everything that was fed is finished.

    Attributes:
        run: The newest run; None before the first.
        group: The task group.
        is_leaving: Whether the body has ended.
    """

    def __init__(self, *, cancel_on_exit: bool = False) -> None:
        self.run: Run | None = None
        self.group: TaskGroup
        self.is_leaving = False
        self._cancel_on_exit = cancel_on_exit
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
        self.group.start_soon(run.execute)

    async def __aenter__(self) -> RunHost:
        self.group = create_task_group()
        await self.group.__aenter__()
        return self

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
        if exc is None and self.run is not None:
            if self._cancel_on_exit:
                self.run.cancel()
            else:
                self.run.finish()
        has_raised = exc is not None
        try:
            handled = await self._close_group(exc_type, exc, traceback)
        finally:
            # A cancellation that passes here refers to this frame.
            del exc, traceback
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

    async def _close_group(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        is_error = exc is not None and not isinstance(exc, get_cancelled_exc_class())
        if exc is not None:
            self.group.cancel_scope.cancel()
        handled: bool | None = False
        fatal: list[BaseException] = []
        try:
            # An error of the body is not passed to the group, which would raise it in a group.
            if is_error:
                handled = await self.group.__aexit__(None, None, None)
            else:
                handled = await self.group.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as errors:
            fatal = fatal_errors(errors)
            if is_error and exc is not None:
                fatal.insert(0, exc)
        finally:
            # The traceback of each error refers to this frame.
            del exc, traceback
        if fatal:
            raise_errors(fatal, "the run was ended by several errors")
        return False if is_error else handled
