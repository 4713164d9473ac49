"""The current backend, asyncio task and context variables."""

from __future__ import annotations

# anyio does not give access to the native task and its context.
import asyncio
import sys
from contextvars import Context, copy_context
from typing import Any

from anyio import get_cancelled_exc_class


def on_asyncio() -> bool:
    """Return whether the caller runs on asyncio; if not, it runs on trio."""
    return issubclass(get_cancelled_exc_class(), asyncio.CancelledError)


def current_asyncio_task() -> asyncio.Task[Any] | None:
    """Return the current task on asyncio, None on trio."""
    return asyncio.current_task() if on_asyncio() else None


def current_context() -> Context | None:
    """
    Return the context of the current loop task, and not a copy, which would take longer.

    Return None where the loop does not give access to it: on asyncio before Python 3.12.
    """
    task: Any = current_asyncio_task()
    if task is None:
        return sys.modules["trio"].lowlevel.current_task().context  # type: ignore[no-any-return]
    return task.get_context() if sys.version_info >= (3, 12) else None


def restore_context(context: Context) -> bool:
    """Set all context variables to their values in *context*; return whether that was possible."""
    for variable in copy_context():
        # A variable that was not set in *context* cannot be unset.
        if variable not in context:
            return False
    for variable, value in context.items():
        if variable.get() is not value:
            variable.set(value)
    return True
