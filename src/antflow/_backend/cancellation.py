"""Tells a cancellation of the run from a cancelled thing that a task happened to await."""

from __future__ import annotations

# A native Task.cancel() is seen by no scope of anyio's: asyncio's own count is its only witness.
import asyncio
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from anyio import current_effective_deadline, get_cancelled_exc_class

from .._model.errors import leaf_exceptions


def is_item_failure(error: BaseException) -> bool:
    """
    Say whether *error*, which a user's function raised in a task of the run, ends one item only.

    An `Exception` does. So does a stray cancellation: on asyncio, awaiting a future or task that
    somebody cancelled raises the same `CancelledError` as being cancelled oneself, and passed on
    it would end the whole task group. Tasks of a run are cancelled through the scope of the run and
    those around it, or, when a loop shuts down, by `Task.cancel()`; a cancellation without either
    is stray. The same holds for a group of nothing but these.

    Everything else ends the run: cancellation proper, KeyboardInterrupt, SystemExit and the like.

    """
    parts = leaf_exceptions(error)
    if all(isinstance(part, Exception) for part in parts):
        return True
    cancelled = get_cancelled_exc_class()
    if not all(isinstance(part, (Exception, cancelled)) for part in parts):
        return False
    if current_effective_deadline() == -math.inf:
        return False
    if not issubclass(cancelled, asyncio.CancelledError):
        return True
    return not _is_cancelled_natively()


# The asyncio task that waits for the end of the present run.
host_task: ContextVar[asyncio.Task[Any] | None] = ContextVar("antflow_host_task", default=None)


def current_asyncio_task() -> asyncio.Task[Any] | None:
    """Return the present task, on asyncio."""
    on_asyncio = issubclass(get_cancelled_exc_class(), asyncio.CancelledError)
    return asyncio.current_task() if on_asyncio else None


def _is_cancelled_natively() -> bool:
    if sys.version_info >= (3, 11):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    else:  # noqa: RET505 - the type checkers read the branch of their version only
        # There is no count of `Task.cancel()` calls. A loop that shuts down cancels all tasks at
        # once, though, so it can be seen of the host of the run, before that had its turn.
        host: Any = host_task.get()
        waiter = host._fut_waiter
        return bool(host._must_cancel or (waiter is not None and waiter.cancelled()))


@contextmanager
def interrupts() -> Iterator[None]:
    """
    Let Ctrl-C come out of the block as KeyboardInterrupt, where asyncio makes a cancellation of it.

    `asyncio.run` turns that back at the end, from Python 3.11 on. The runner with which anyio
    stands in for it on 3.10 does not.
    """
    try:
        yield
    except asyncio.CancelledError:
        if sys.version_info < (3, 11):
            handler = signal.getsignal(signal.SIGINT)
            runner = getattr(getattr(handler, "func", None), "__self__", None)
            if getattr(runner, "_interrupt_count", 0):
                raise KeyboardInterrupt from None
        raise
