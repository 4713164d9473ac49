"""Virtual time on both backends: a clock that jumps to the next deadline when nothing can run."""

from __future__ import annotations

# The clocks replace parts of the event loops, so they are built on the loops themselves.
import asyncio
import math
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import trio
import trio.testing

from .blocked_tasks import asyncio_tasks, is_waiting_for_thread, trio_tasks

# Real seconds between two checks whether threads still run. Virtual time stands still meanwhile.
_POLL_INTERVAL = 0.001


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """
    An asyncio event loop in which sleeping takes no real time.

    Its clock starts at 0.0 seconds. It stands still while anything can run, in the loop or in a
    thread, and then jumps to the next timer.

    Args:
        idle: Called when nothing can run, in the loop or in a thread, with one argument: whether a
            timer is set. It returns whether something can run now; if not, or without *idle*, the
            clock jumps to the next timer. Without a timer, the loop then waits in real time for an
            event from outside, for example a signal.
    """

    def __init__(self, idle: Callable[[bool], bool] | None = None) -> None:
        self._now = 0.0
        self._idle = idle
        self._executor_calls = 0
        super().__init__(_JumpingSelector(self))

    @property
    def _clock_resolution(self) -> float:
        # asyncio runs the timers that are due within the resolution. It must be larger than the
        # distance between two floats near the current time, or the loop may never reach a timer.
        return 2 * math.ulp(self._now)

    @_clock_resolution.setter
    def _clock_resolution(self, seconds: float) -> None:
        """Ignore the resolution of the real clock, which the base class sets."""

    def time(self) -> float:
        """Return the virtual time, in seconds since the loop was created."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Advance the clock by *seconds*, as if a callback had blocked the loop for that long."""
        self._now += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run *func* in an executor. The clock stands still until it has returned."""
        future = super().run_in_executor(executor, func, *args)
        self._executor_calls += 1
        future.add_done_callback(self._executor_call_done)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the threads to end. The clock stands still meanwhile."""
        # asyncio starts a thread for this, too.
        self._executor_calls += 1
        await super().shutdown_default_executor(*args, **kwargs)
        self._executor_calls -= 1

    def _executor_call_done(self, future: asyncio.Future[Any]) -> None:
        self._executor_calls -= 1

    def pass_time(self, timeout: float | None) -> float | None:
        """Advance the clock by *timeout* seconds; return for how many real seconds to wait."""
        if self._executor_calls or is_waiting_for_thread(asyncio_tasks(self)):
            return _POLL_INTERVAL
        if self._idle is not None and self._idle(timeout is not None):
            return 0
        if timeout is not None:
            # The clock must move even if the sum is rounded down to the current time.
            self._now = max(self._now + timeout, math.nextafter(self._now, math.inf))
            return 0
        return None


class _JumpingSelector(selectors.DefaultSelector):
    """Asks its loop for how long to wait when no event is ready."""

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
    Return a clock for trio with which sleeping takes no real time.

    It starts at 0.0 seconds. It stands still while anything can run, in the loop or in a thread,
    and then jumps to the next deadline. If it is used for several runs, its time continues from run
    to run.

    Args:
        idle: As for `VirtualTimeLoop`.
    """
    clock = trio.testing.MockClock(autojump_threshold=0)
    jump = clock._autojump

    # trio calls this when nothing can run and no task is in wait_all_tasks_blocked().
    def pass_time() -> None:
        has_timer = trio.lowlevel.current_statistics().seconds_to_next_deadline < math.inf
        if is_waiting_for_thread(trio_tasks()):
            time.sleep(_POLL_INTERVAL)
        elif idle is not None and idle(has_timer):
            pass
        elif has_timer:
            jump()
        else:
            time.sleep(_POLL_INTERVAL)

    # MockClock cannot be subclassed.
    clock._autojump = pass_time  # type: ignore[method-assign]
    return clock


def backends() -> list[Any]:
    """
    Return both backends with virtual time, as parameters for a pytest fixture.

    For tests that run with the pytest plugin of anyio::

        @pytest.fixture(params=antflow.testing.backends())
        def anyio_backend(request):
            return request.param

    Then ``anyio.sleep(3600)`` takes no real time, and ``anyio.current_time()`` is an hour later.

    Raises:
        ImportError: pytest is not installed.
    """
    import pytest

    return [
        pytest.param(("asyncio", {"loop_factory": VirtualTimeLoop}), id="asyncio"),
        pytest.param(("trio", {"clock": virtual_clock()}), id="trio"),
    ]
