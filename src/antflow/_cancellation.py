"""Tells a cancellation of the run from a cancelled thing that a task happened to await."""

from __future__ import annotations

# A native Task.cancel() is seen by no scope of anyio's: asyncio's own count is its only witness.
import asyncio
import math

from anyio import current_effective_deadline, get_cancelled_exc_class

from ._errors import leaves


def is_failure_of_item(error: BaseException) -> bool:
    """
    Say whether *error*, which a user's function raised in a task of the run, ends one item only.

    An `Exception` does. So does a stray cancellation: on asyncio, awaiting a future or task that
    somebody cancelled raises the same `CancelledError` as being cancelled oneself, and passed on
    it would end the whole task group. Tasks of a run are cancelled through the scope of the run and
    those around it, or, when a loop shuts down, by `Task.cancel()`; a cancellation without either
    is stray. The same holds for a group of nothing but these.

    Everything else ends the run: cancellation proper, KeyboardInterrupt, SystemExit and the like.

    Python 3.10 keeps no count of `Task.cancel()` calls: there, what is in a worker's hands when a
    loop shuts down is taken for a failed item.
    """
    parts = leaves(error)
    if all(isinstance(part, Exception) for part in parts):
        return True
    cancelled = get_cancelled_exc_class()
    if not all(isinstance(part, (Exception, cancelled)) for part in parts):
        return False
    if current_effective_deadline() == -math.inf:
        return False
    if not issubclass(cancelled, asyncio.CancelledError):
        return True
    return not getattr(asyncio.current_task(), "cancelling", int)()
