"""Context variables: what the task of one item sets must not be there for the next."""

from __future__ import annotations

import sys
from contextvars import Context, copy_context
from typing import Any

from .cancellation import current_asyncio_task


def current_context() -> Context | None:
    """
    Return the context that the present task runs in: itself, not a copy, which takes longer.

    None if the loop does not give it out, as asyncio before Python 3.12.
    """
    # anyio has no way to ask for it: each backend is asked for its own.
    task: Any = current_asyncio_task()
    if task is None:
        return sys.modules["trio"].lowlevel.current_task().context  # type: ignore[no-any-return]
    return task.get_context() if sys.version_info >= (3, 12) else None


def reset(context: Context) -> bool:
    """Set all context variables to what they are in *context*; return whether that was possible."""
    for variable in copy_context():
        if variable not in context:
            return False
    for variable, value in context.items():
        if variable.get() is not value:
            variable.set(value)
    return True
