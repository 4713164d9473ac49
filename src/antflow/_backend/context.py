"""The caller's surroundings: its backend, its loop task, its context, and its runs."""

from __future__ import annotations

# anyio does not give access to the native task and its context.
import asyncio
import sys
import types
from collections.abc import Coroutine, Generator, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any
from weakref import ref

from anyio import get_cancelled_exc_class
from attrs import frozen


def on_asyncio() -> bool:
    """Return whether the caller runs on asyncio; if not, it runs on trio."""
    return issubclass(get_cancelled_exc_class(), asyncio.CancelledError)


def current_token() -> Any:
    """Return what identifies the loop of the caller: the asyncio loop, or the token of trio."""
    if on_asyncio():
        return asyncio.get_running_loop()
    return sys.modules["trio"].lowlevel.current_trio_token()


def cancelling(task: asyncio.Task[Any]) -> int:
    """Return how many calls of ``task.cancel()`` were not undone; 0 on Python 3.10."""
    if sys.version_info >= (3, 11):
        return task.cancelling()
    else:  # noqa: RET505 - the type checkers read the branch of their version only
        return 0


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
    task: ref[asyncio.Task[Any]] | None
    cancelling: int


def current_host() -> Host:
    """Return the current loop task as the host of a run that begins."""
    task = asyncio.current_task() if on_asyncio() else None
    if task is None:
        return Host(current_token(), None, 0)
    return Host(current_token(), ref(task), cancelling(task))


# The host of the current run.
host_task: ContextVar[Host | None] = ContextVar("antflow_host_task", default=None)


def current_context() -> Context | None:
    """
    Return the context of the current loop task, and not a copy, which would take longer.

    Return None where the loop does not give access to it: on asyncio before Python 3.12.
    """
    if not on_asyncio():
        return sys.modules["trio"].lowlevel.current_task().context  # type: ignore[no-any-return]
    task: Any = asyncio.current_task()
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


def current_loop_task() -> Any:
    """Return the loop task that the caller runs in; None in a thread, or outside any loop."""
    try:
        if on_asyncio():
            return asyncio.current_task()
        return sys.modules["trio"].lowlevel.current_task()
    except RuntimeError:
        # A thread may have copied the context of a loop task, and with it the name of its backend.
        return None


class RunToken:
    """
    Stands for a run in context variables.

    Whatever a task creates (a timer, a connection, a loop task) copies the context, for as long as
    it lives. So the context refers to the token only, which is emptied when the run has ended.

    Attributes:
        run: The run; None once it has ended.
        outer: The membership of the loop task that awaits the run, if that belongs to a run, too.
    """

    __slots__ = ("outer", "run")

    def __init__(self, run: Any) -> None:
        self.run = run
        self.outer: Membership | None = None
        self.begin()

    def begin(self) -> None:
        """Note that the current loop task starts the run, and awaits it."""
        self.outer = current_membership() if is_inside() else None

    def enter(self, worker: Any = None) -> None:
        """Make the current loop task one of the run; *worker* is what it works for, if anything."""
        _membership.set(Membership(self, ref(current_loop_task()), worker))


class Membership:
    """
    A loop task of a run, as its context refers to it; loop tasks that it starts inherit this.

    Attributes:
        token: Stands for the run.
        loop_task: A weak reference to the loop task of the run.
        worker: The worker that it runs, if it does.
    """

    __slots__ = ("loop_task", "token", "worker")

    def __init__(self, token: RunToken, loop_task: ref[Any], worker: Any) -> None:
        self.token = token
        self.loop_task = loop_task
        self.worker = worker


_membership: ContextVar[Membership | None] = ContextVar("antflow_membership", default=None)
# Set in the threads in which a task of the run is called, while the loop task waits for them.
_thread_of: ContextVar[ThreadCall | None] = ContextVar("antflow_thread_of", default=None)


class ThreadCall:
    """A call in a thread; loop tasks that it starts inherit this, and may outlive it."""

    __slots__ = ("active", "membership")

    def __init__(self) -> None:
        self.active = True
        self.membership = _membership.get()


def enter_thread() -> ThreadCall:
    """Let the current thread count as the loop task in whose context it was started."""
    call = ThreadCall()
    _thread_of.set(call)
    return call


def current_membership() -> Membership | None:
    """Return the membership of the caller, also if it has only inherited that."""
    return _membership.get()


def is_inside() -> bool:
    """
    Return whether the caller is a loop task of its run.

    A loop task that a task has started is not: the run does not wait for it.
    """
    membership = _membership.get()
    if membership is None:
        return False
    call = _thread_of.get()
    if call is not None and call.membership is membership and call.active:
        return True
    task = current_loop_task()
    return task is not None and membership.loop_task() is task


def memberships() -> Iterator[tuple[RunToken, bool]]:
    """Give the runs that the caller belongs to, innermost first, and whether it is inside."""
    membership, inside = _membership.get(), is_inside()
    while membership is not None:
        yield membership.token, inside
        # A run is awaited by the loop task that has started it.
        membership = membership.token.outer
