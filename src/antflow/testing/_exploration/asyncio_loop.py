"""An asyncio event loop whose tasks take turns as a schedule says."""

from __future__ import annotations

# It is one of asyncio's loops.
import asyncio
from collections.abc import Callable
from typing import Any

from .clock import VirtualTimeLoop
from .schedule import ReadyQueue

# How a task has its next step called, in C: by an object without a name if it was only begun, or
# let others go first; by this function if what it waited for is there.
_STEPS = {None, "task_wakeup"}


def task_of(handle: asyncio.Handle) -> Any:
    """Return the task of which *handle* calls the next step, or None if it calls something else."""
    callback = handle._callback  # type: ignore[attr-defined]
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task) and getattr(callback, "__name__", None) in _STEPS:
        return owner
    return None


class _Handles:
    """
    What an event loop takes for the deque in which it keeps what can run.

    Args:
        nothing: A handle that calls nothing.
    """

    def __init__(self, queue: ReadyQueue, nothing: asyncio.Handle) -> None:
        self._queue = queue
        self._nothing = nothing

    def __len__(self) -> int:
        return len(self._queue)

    def append(self, handle: asyncio.Handle) -> None:
        self._queue.append(handle)

    def popleft(self) -> asyncio.Handle:
        handle: asyncio.Handle | None = self._queue.popleft()
        return self._nothing if handle is None else handle

    def clear(self) -> None:
        self._queue.clear()


class ExploredLoop(VirtualTimeLoop):
    """
    An event loop with virtual time that asks *queue* what to run next.

    It relies on `_ready`, the deque in which `asyncio.BaseEventLoop` keeps what can run: there is
    no public way.
    """

    def __init__(self, queue: ReadyQueue, idle: Callable[[bool], bool]) -> None:
        super().__init__(idle)
        nothing = asyncio.Handle(print, (), self)
        nothing.cancel()
        assert not self._ready  # type: ignore[has-type]
        self._ready = _Handles(queue, nothing)  # pyright: ignore
