"""Virtual time on both backends: a clock that jumps to the next deadline when nobody can run."""

from __future__ import annotations

# These stand in for the loops of the backends, so they must be built on them.
import asyncio
import math
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import trio
import trio.testing

from .blocked_tasks import a_thread_works, asyncio_tasks, trio_tasks

# Real seconds between two looks at what runs in threads: time stands still for as long as they do.
_PATIENCE = 0.001


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """
    An asyncio event loop in which waiting takes no time.

    Its clock starts at 0.0 seconds, stands still while anything can run, here or in a thread, and
    then jumps to the next timer.

    Args:
        idle: Called when nothing can run, also in no thread, with whether a timer is set; returns
            whether something can run now after all. By default the clock jumps, or the loop waits
            for what comes from outside, a signal for example.
    """

    def __init__(self, idle: Callable[[bool], bool] | None = None) -> None:
        self._now = 0.0
        self._idle = idle
        self._in_executors = 0
        super().__init__(_JumpingSelector(self))

    @property
    def _clock_resolution(self) -> float:
        # asyncio runs a timer that is less than this away. Where numbers are further apart than
        # that, it would otherwise wait for ever for the one that comes next.
        return 2 * math.ulp(self._now)

    @_clock_resolution.setter
    def _clock_resolution(self, seconds: float) -> None:
        """Leave that of the real clock aside."""

    def time(self) -> float:
        """Return the seconds that have passed on the virtual clock."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass, as if somebody had held up the loop for so long."""
        self._now += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run *func* in a thread; the clock stands still until it has returned."""
        future = super().run_in_executor(executor, func, *args)
        self._in_executors += 1
        future.add_done_callback(self._executed)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the threads; the clock stands still until they have ended."""
        # A thread sees to that, too.
        self._in_executors += 1
        await super().shutdown_default_executor(*args, **kwargs)
        self._in_executors -= 1

    def _executed(self, future: asyncio.Future[Any]) -> None:
        self._in_executors -= 1

    def pass_time(self, timeout: float | None) -> float | None:
        """Let *timeout* seconds pass at once; return for how long to wait really."""
        if self._in_executors or a_thread_works(asyncio_tasks(self)):
            return _PATIENCE
        if self._idle is not None and self._idle(timeout is not None):
            return 0
        if timeout is not None:
            # Rounding must not keep the clock where it is.
            self._now = max(self._now + timeout, math.nextafter(self._now, math.inf))
            return 0
        return None


class _JumpingSelector(selectors.DefaultSelector):
    """Asks its loop before it waits."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        return super().select(self._loop.pass_time(timeout))


def virtual_clock(idle: Callable[[bool], bool] | None = None) -> trio.testing.MockClock:
    """
    Return a clock for trio with which waiting takes no time.

    It begins at 0.0 seconds, stands still while anything can run, here or in a thread, and then
    jumps to the next deadline. Used for several runs, it goes on.

    Args:
        idle: As for `VirtualTimeLoop`.
    """
    clock = trio.testing.MockClock(autojump_threshold=0)
    jump = clock._autojump

    # trio calls this when nothing can run, and nobody waits for just that.
    def pass_time() -> None:
        timer = trio.lowlevel.current_statistics().seconds_to_next_deadline < math.inf
        if a_thread_works(trio_tasks()):
            time.sleep(_PATIENCE)
        elif idle is not None and idle(timer):
            pass
        elif timer:
            jump()
        else:
            time.sleep(_PATIENCE)

    # MockClock lets nobody make a subclass.
    clock._autojump = pass_time  # type: ignore[method-assign]
    return clock


def backends() -> list[Any]:
    """
    Return both backends with virtual time, as parameters of a pytest fixture.

    For tests that run under the pytest plugin of anyio::

        @pytest.fixture(params=antflow.testing.backends())
        def anyio_backend(request):
            return request.param

    Then `anyio.sleep(3600)` takes no time, and `anyio.current_time()` says that it took an hour.
    """
    import pytest

    return [
        pytest.param(("asyncio", {"loop_factory": VirtualTimeLoop}), id="asyncio"),
        pytest.param(("trio", {"clock": virtual_clock()}), id="trio"),
    ]
