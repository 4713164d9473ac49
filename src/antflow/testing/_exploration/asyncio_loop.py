"""An asyncio event loop that runs its tasks in the order that a schedule asks for."""

from __future__ import annotations

# The loop is a subclass of one of asyncio's, and its queue contains asyncio's handles.
import asyncio
from collections.abc import Callable
from typing import Any

from .clock import VirtualTimeLoop
from .schedule import ReadyQueue

# The names of the callbacks with which a task of asyncio's C implementation makes its next step: an
# object without a name if the task was just created or has yielded, `task_wakeup` if what it was
# waiting for is done.
_STEP_CALLBACKS = {None, "task_wakeup"}


def task_of_handle(handle: asyncio.Handle) -> Any:
    """Return the task whose next step *handle* makes, or None if it calls something else."""
    callback = handle._callback  # type: ignore[attr-defined]
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task) and getattr(callback, "__name__", None) in _STEP_CALLBACKS:
        return owner
    return None


class _HandleQueue:
    """
    Takes the place of the deque of ready handles in an asyncio event loop.

    Args:
        queue: The handles, in the order of a schedule.
        no_op: Returned when no handle can run. A cancelled handle, which the loop skips.
    """

    def __init__(self, queue: ReadyQueue, no_op: asyncio.Handle) -> None:
        self._queue = queue
        self._no_op = no_op

    def __len__(self) -> int:
        return len(self._queue)

    def append(self, handle: asyncio.Handle) -> None:
        self._queue.append(handle)

    def popleft(self) -> asyncio.Handle:
        handle: asyncio.Handle | None = self._queue.popleft()
        return self._no_op if handle is None else handle

    def clear(self) -> None:
        self._queue.clear()


class ScheduledLoop(VirtualTimeLoop):
    """
    An event loop with virtual time that asks a queue what to run next.

    It replaces `_ready`, the deque in which `asyncio.BaseEventLoop` keeps the handles that can run.
    There is no public API for that.

    Args:
        queue: The queue, which must be empty.
        idle: As for `VirtualTimeLoop`.
    """

    def __init__(self, queue: ReadyQueue, idle: Callable[[bool], bool]) -> None:
        super().__init__(idle)
        no_op = asyncio.Handle(print, (), self)
        no_op.cancel()
        assert not self._ready  # type: ignore[has-type]
        self._ready = _HandleQueue(queue, no_op)  # pyright: ignore
