"""Attributes a cancellation: to the run, or to something that a task awaited."""

from __future__ import annotations

# anyio's scopes do not see a native Task.cancel(): only asyncio's own count shows it.
import asyncio
import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from anyio import current_effective_deadline, get_cancelled_exc_class

from .._model.describe import leaf_exceptions
from .._model.errors import PipelineError
from .context import on_asyncio


def is_item_failure(error: BaseException) -> bool:
    """
    Return whether *error*, which a user's function raised, ends one item only.

    An `Exception` does. So does a stray cancellation: on asyncio, awaiting a future or task that
    was cancelled raises the same `CancelledError` as being cancelled, and would end the whole task
    group. The loop tasks of a run are cancelled through the scope of the run or a scope around it,
    or, when a loop shuts down, by `Task.cancel()`. A cancellation without either is stray. A group
    that contains only such errors ends one item as well.

    Everything else ends the run: a real cancellation, KeyboardInterrupt, SystemExit and the like.
    """
    parts = leaf_exceptions(error)
    if all(isinstance(part, Exception) for part in parts):
        return True
    cancelled = get_cancelled_exc_class()
    if not all(isinstance(part, (Exception, cancelled)) for part in parts):
        return False
    if current_effective_deadline() == -math.inf:
        return False
    return not (on_asyncio() and _is_cancelled_natively())


def stray_cancellation(error: BaseException) -> PipelineError:
    """Return what the stray cancellation *error* becomes, which a source has raised."""
    stray = PipelineError(
        f"the source raised {error!r}, and nothing has cancelled it: it has awaited something that "
        "was cancelled. Catch that in the source, or raise an Exception."
    )
    stray.__cause__ = error
    return stray


# The asyncio task that waits for the end of the current run.
host_task: ContextVar[asyncio.Task[Any] | None] = ContextVar("antflow_host_task", default=None)


def _is_cancelled_natively() -> bool:
    if sys.version_info >= (3, 11):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    else:  # noqa: RET505 - the type checkers read the branch of their version only
        # Calls of `Task.cancel()` are not counted. But a loop that shuts down cancels all tasks at
        # once, and the task that executes the run shows that before it runs again.
        host: Any = host_task.get()
        waiter = host._fut_waiter
        return bool(host._must_cancel or (waiter is not None and waiter.cancelled()))


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
