"""Tells a cancellation of this run from a cancelled thing that a task happened to await."""

from __future__ import annotations

# A native Task.cancel() is seen by no anyio scope; asyncio's own count is the only witness of it.
import asyncio
import math

from anyio import current_effective_deadline, get_cancelled_exc_class


def is_stray(error: BaseException, *, in_doubt: bool = True) -> bool:
    """
    Say whether *error* is a cancellation that nobody asked of the present task.

    On asyncio, awaiting a future or task that somebody cancelled raises the same `CancelledError`
    as being cancelled oneself; passed on, it would silently end a whole task group. It is stray if
    no scope around us is cancelled and nobody called `Task.cancel()`. trio's cancellation comes
    from scopes alone, so that there the first test is always enough.

    Python 3.10 keeps no count of `Task.cancel()` calls; *in_doubt* is the answer where only that
    could tell. Workers are cancelled through scopes, so that for them the answer is yes; a caller's
    own task may well be cancelled natively.
    """
    if not isinstance(error, get_cancelled_exc_class()):
        return False
    if current_effective_deadline() == -math.inf:
        return False
    if not isinstance(error, asyncio.CancelledError):
        return True
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return in_doubt if cancelling is None else not cancelling()
