"""Detects the cancellation of a run synchronously, before any of its loop tasks receives it."""

from __future__ import annotations

# A cancellation that the run did not cause (by a scope around it, or by Task.cancel()) reaches one
# loop task after the other, in any order, when each is scheduled. But on both loops, the object
# that a task waits for is notified at once. Each loop has its own way to wait for such an object.
import asyncio
import sys
from collections.abc import Callable
from typing import Any

from .context import on_asyncio


class CancellationWatch:
    """
    Waits in a loop task of the run, beside the workers: what cancels them cancels this wait, too.

    Args:
        callbacks: Called once if the wait is cancelled, before any loop task of the run receives
            the cancellation. They are called synchronously by the code that cancels.

    Attributes:
        callbacks: As given; others may be added before the wait.
        triggered: Whether the wait was cancelled.
    """

    def __init__(self, *callbacks: Callable[[], None]) -> None:
        self.triggered = False
        self.callbacks = [*callbacks]
        self._wake: Callable[[], None] | None = None
        self._released = False

    async def wait(self) -> None:
        """Wait until `release()`."""
        if self._released:
            return
        if on_asyncio():
            await self._wait_on_asyncio()
        else:
            await self._wait_on_trio()

    def release(self) -> None:
        """Let `wait()` return; no-op once the watch was triggered."""
        self._released = True
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def _cancelled(self) -> None:
        # A second cancellation, or one after release(), is ignored.
        if self._wake is not None:
            self._wake = None
            self.triggered = True
            for callback in self.callbacks:
                callback()

    async def _wait_on_asyncio(self) -> None:
        future = _NotifyingFuture(loop=asyncio.get_running_loop())
        future.on_cancel = self._cancelled
        self._wake = lambda: future.set_result(None)
        try:
            await future
        finally:
            del future.on_cancel

    async def _wait_on_trio(self) -> None:
        lowlevel: Any = sys.modules["trio"].lowlevel
        task = lowlevel.current_task()

        def aborted(raise_cancel: object) -> Any:
            self._cancelled()
            return lowlevel.Abort.SUCCEEDED

        self._wake = lambda: lowlevel.reschedule(task)
        await lowlevel.wait_task_rescheduled(aborted)


class _NotifyingFuture(asyncio.Future[None]):
    """A future that reports its cancellation; `Task.cancel()` of the waiting task cancels it."""

    on_cancel: Callable[[], None]

    def cancel(self, msg: Any | None = None) -> bool:
        self.on_cancel()
        return super().cancel(msg)
