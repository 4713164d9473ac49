"""The caller's surroundings: its backend, loop, loop task and context variables."""

from __future__ import annotations

# anyio has no way to ask for the backend's own task and its context.
import asyncio
import sys
import types
import weakref
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any

from anyio import get_cancelled_exc_class
from attrs import frozen


def on_asyncio() -> bool:
    """Return whether the caller runs on asyncio; the other backend is trio."""
    return issubclass(get_cancelled_exc_class(), asyncio.CancelledError)


def current_token() -> Any:
    """Return what identifies the loop of the caller: the asyncio loop, or the token of trio."""
    if on_asyncio():
        return asyncio.get_running_loop()
    return sys.modules["trio"].lowlevel.current_trio_token()


def cancelling(task: asyncio.Task[Any]) -> int:
    """Return how many calls of ``task.cancel()`` were not undone; 0 on Python 3.10."""
    return task.cancelling() if sys.version_info >= (3, 11) else 0


@frozen(eq=False)
class Host:
    """
    The loop task that waits for the end of a run, when the run began.

    Attributes:
        token: What identifies its loop; see `check_loop`.
        task: The asyncio task; None on trio. Tasks of the run may keep the host alive for longer
            than the run, and that must not keep what its caller refers to.
        cancelling: How many calls of ``task.cancel()`` were not undone by then.
    """

    token: Any
    task: weakref.ref[asyncio.Task[Any]] | None
    cancelling: int


def current_host() -> Host:
    """Return the current loop task as the host of a run that begins."""
    task = asyncio.current_task() if on_asyncio() else None
    if task is None:
        return Host(current_token(), None, 0)
    return Host(current_token(), weakref.ref(task), cancelling(task))


# The host of the current run.
host_task: ContextVar[Host | None] = ContextVar("antflow_host_task", default=None)


def current_context() -> Context | None:
    """
    Return the context that the current loop task runs in: not a copy, which would take longer.

    None where the loop does not offer it: on asyncio before Python 3.12.
    """
    if not on_asyncio():
        return sys.modules["trio"].lowlevel.current_task().context  # type: ignore[no-any-return]
    task: Any = asyncio.current_task()
    return task.get_context() if sys.version_info >= (3, 12) else None


def restore_context(context: Context) -> bool:
    """Set all context variables to their values in *context*; return whether that was possible."""
    for variable in copy_context():
        # A variable that was new cannot be unset.
        if variable not in context:
            return False
    for variable, value in context.items():
        if variable.get() is not value:
            variable.set(value)
    return True


@types.coroutine
def run_in_context(
    context: Context, coroutine: Coroutine[Any, Any, Any]
) -> Generator[Any, Any, Any]:
    """
    Await *coroutine* in *context*, in the current loop task.

    Everything that reads or copies the current context sees *context*: callbacks of the loop, and
    new loop tasks and threads. Everything that asks for the loop task sees the current one: scopes,
    time limits and `asyncio.current_task()`.
    """
    step: Any = coroutine.send
    argument: Any = None
    try:
        while True:
            try:
                awaited = context.run(step, argument)
            except StopIteration as end:
                return end.value
            # Outside the except block, or errors of the coroutine would have this as context.
            try:
                argument = yield awaited
                step = coroutine.send
            except GeneratorExit:
                context.run(coroutine.close)
                raise
            except BaseException as error:
                step, argument = coroutine.throw, error
    finally:
        # An error refers to this frame, which must not refer to the error.
        del coroutine, step, argument
