"""A task that stands for its run: it knows of a cancellation at the very instant."""

from __future__ import annotations

# A cancellation that the run did not ask for itself (of a scope around it, of a native task) is
# told by anyio to one task after the other, in any order, when each has its turn. Both loops tell
# what a task waits for at once, and each has its own way to wait for a thing of one's own.
import asyncio
import sys
from collections.abc import Callable
from typing import Any

from anyio import get_cancelled_exc_class


class CancellationWatch:
    """
    Waits in a task of the run, next to those that carry items: what cancels these cancels it.

    Args:
        alarms: Called once if the wait is cancelled: before any task of the run sees its own
            cancellation, in whichever task or callback that began.

    Attributes:
        alarmed: Whether that has happened.
    """

    def __init__(self, *alarms: Callable[[], None]) -> None:
        self.alarmed = False
        self._alarms = alarms
        self._wake: Callable[[], None] | None = None
        self._relieved = False

    async def stand(self) -> None:
        """Wait until `relieve()`."""
        if self._relieved:
            return
        if issubclass(get_cancelled_exc_class(), asyncio.CancelledError):
            await self._stand_on_asyncio()
        else:
            await self._stand_on_trio()

    def relieve(self) -> None:
        """Let `stand()` return. Once it has been alarmed, that does nothing."""
        self._relieved = True
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def _cancelled(self) -> None:
        # A cancellation that comes on top of another, or after the relief, tells nothing new.
        if self._wake is not None:
            self._wake = None
            self.alarmed = True
            for alarm in self._alarms:
                alarm()

    async def _stand_on_asyncio(self) -> None:
        bell = _NotifyingFuture(loop=asyncio.get_running_loop())
        bell.rings = self._cancelled
        self._wake = lambda: bell.set_result(None)
        try:
            await bell
        finally:
            del bell.rings

    async def _stand_on_trio(self) -> None:
        lowlevel: Any = sys.modules["trio"].lowlevel
        task = lowlevel.current_task()

        def aborted(raise_cancel: object) -> Any:
            self._cancelled()
            return lowlevel.Abort.SUCCEEDED

        self._wake = lambda: lowlevel.reschedule(task)
        await lowlevel.wait_task_rescheduled(aborted)


class _NotifyingFuture(asyncio.Future[None]):
    """What the sentry waits for on asyncio: `Task.cancel()` cancels it before it returns."""

    rings: Callable[[], None]

    def cancel(self, msg: Any | None = None) -> bool:
        self.rings()
        return super().cancel(msg)
