"""Attributes a cancellation: to the run, or to something that a task awaited."""

from __future__ import annotations

# anyio's scopes do not see a native Task.cancel(): only asyncio's own count shows it.
import asyncio
import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from anyio import current_effective_deadline, get_cancelled_exc_class

from .._model.describe import leaf_exceptions
from .._model.errors import PipelineError
from .context import cancelling, current_loop_task, host_task, on_asyncio


def is_item_failure(error: BaseException) -> bool:
    """
    Return whether *error*, which a user's function raised, ends one item only.

    An `Exception` does. So does a stray cancellation: on asyncio, awaiting a future or task that
    was cancelled raises the same `CancelledError` as being cancelled, and would end the whole task
    group. The loop tasks of a run are cancelled through the scope of the run or those around it,
    or, when a loop shuts down, by `Task.cancel()`, together with the host of the run; a
    cancellation without either is stray. The same holds for a group of nothing but these.

    Everything else ends the run: a real cancellation, KeyboardInterrupt, SystemExit and the like.
    """
    parts = leaf_exceptions(error)
    if all(isinstance(part, Exception) for part in parts):
        return True
    cancelled = get_cancelled_exc_class()
    if not all(isinstance(part, (Exception, cancelled)) for part in parts):
        return False
    return not _run_is_being_cancelled()


def stray_cancellation(error: BaseException) -> PipelineError:
    """Return what the stray cancellation *error* becomes, which a source has raised."""
    stray = PipelineError(
        f"the source raised {error!r}, and nothing has cancelled it: it has awaited something that "
        "was cancelled. Catch that in the source, or raise an Exception."
    )
    stray.__cause__ = error
    return stray


def _run_is_being_cancelled() -> bool:
    """Return whether a scope or `Task.cancel()` is cancelling the current run."""
    if current_effective_deadline() == -math.inf:
        return True
    host = host_task.get()
    task: Any = None if host is None or host.task is None else host.task()
    if host is None or task is None:
        return False
    if sys.version_info >= (3, 11):
        return cancelling(task) > host.cancelling
    else:  # noqa: RET505 - the type checkers read the branch of their version only
        # There is no count of `Task.cancel()` calls. But a loop that shuts down cancels all tasks
        # at once, which shows at the host of the run before that runs again.
        waiter = task._fut_waiter
        return bool(task._must_cancel or (waiter is not None and waiter.cancelled()))


def forget_cancellations() -> None:
    """
    Undo the calls of `Task.cancel()` that a failed item has left behind in its worker.

    Old time limits cancel the task that they are used in, and do not undo that. The next item runs
    in the same loop task: an `asyncio.TaskGroup` there would take this for a cancellation of its
    own item. Not while the run is being cancelled: then the calls are not those of an item.
    """
    if sys.version_info >= (3, 11):
        task = current_loop_task() if on_asyncio() else None
        if task is not None and task.cancelling() and not _run_is_being_cancelled():
            while task.uncancel():
                pass


# `asyncio.run()` turns the cancellation that Ctrl-C causes back into a KeyboardInterrupt. On Python
# 3.10, the runner that anyio uses in its place does not, so this context manager does.
restoring_keyboard_interrupt: Callable[[], AbstractContextManager[None]] = nullcontext

if sys.version_info < (3, 11):

    @contextmanager
    def _restore_keyboard_interrupt() -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            handler = signal.getsignal(signal.SIGINT)
            runner = getattr(getattr(handler, "func", None), "__self__", None)
            if getattr(runner, "_interrupt_count", 0):
                raise KeyboardInterrupt from None
            raise

    restoring_keyboard_interrupt = _restore_keyboard_interrupt
