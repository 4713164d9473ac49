"""Steps a task manually, to time each step and to enforce ``cancel_grace``."""

from __future__ import annotations

import math
import types
from collections.abc import Awaitable, Coroutine, Generator
from time import perf_counter
from typing import Any

from anyio import current_effective_deadline, current_time, get_cancelled_exc_class
from attrs import define, field

from .._events.event_bus import logger
from .._state.worker import Worker


def _cancellation_in(answer: Any) -> BaseException | None:
    """
    Return the cancellation that ended a wait, or None.

    asyncio throws it into the task. trio sends the outcome of the wait, which raises it there.
    """
    error = answer if isinstance(answer, BaseException) else getattr(answer, "error", None)
    return error if isinstance(error, get_cancelled_exc_class()) else None


@define(eq=False)
class Watchdog:
    """
    The time bounds of the tasks of one run, and whether the run is cancelled.

    Attributes:
        slow_callback_duration: How many seconds a step may take; None for no bound.
        cancel_grace: How many seconds a task may continue after the run was cancelled; None for no
            bound.
        cancelled: Whether the run is cancelled. Scopes inside a task do not count.
        grace_began: The time of the event loop at which a task first received a cancellation after
            that.
    """

    slow_callback_duration: float | None
    cancel_grace: float | None
    cancelled: bool = field(default=False, init=False)
    grace_began: float | None = field(default=None, init=False)

    def note_cancellation(self) -> None:
        """Note that the run is being cancelled, before its tasks receive the cancellation."""
        self.cancelled = True

    def grace_is_over(self) -> bool:
        """Return whether the grace period is over; the first call begins it."""
        if self.cancel_grace is None:
            return False
        now = current_time()
        if self.grace_began is None:
            self.grace_began = now
        return now - self.grace_began >= self.cancel_grace


@types.coroutine
def drive(
    coroutine: Coroutine[Any, Any, Any], worker: Worker, watchdog: Watchdog
) -> Generator[Any, Any, Any]:
    """
    Await *coroutine* for *worker*: pass what it awaits to the event loop, and the answers back.

    Not every cancellation is that of the run: scopes inside the task cause some, and on trio each
    `sleep()` ends with one. So a cancellation counts only if it ends a wait that was certain to be
    cancelled when it began. The task receives the first one that counts as usual. If another one
    counts after the grace period, the task is abandoned.
    """
    slow = math.inf if watchdog.slow_callback_duration is None else watchdog.slow_callback_duration
    received = is_certain = False
    send = step = coroutine.send
    argument: Any = None
    cancellation: BaseException | None = None
    try:
        while True:
            began = perf_counter()
            try:
                awaited = step(argument)
            except StopIteration as end:
                return end.value
            finally:
                if perf_counter() - began > slow:
                    _warn_of_slow_step(worker, perf_counter() - began, slow)
            if watchdog.cancelled:
                is_certain = current_effective_deadline() == -math.inf
            # What is caught is thrown into the task outside the except block, or it would become
            # the context of later errors of the task.
            try:
                argument = yield awaited
                step = send
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                step, argument = coroutine.throw, error
            if watchdog.cancelled:
                cancellation = _cancellation_in(argument)
                if cancellation is not None:
                    if watchdog.grace_is_over() and is_certain and received:
                        _warn_of_late_end(worker, watchdog)
                        yield from _abandon(coroutine)
                        raise cancellation
                    received = received or is_certain
    finally:
        # Release these now. The traceback of an error refers to this frame, so the frame must not
        # refer to the error.
        del coroutine, send, step, argument, cancellation


def _abandon(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, None]:
    """
    Close *coroutine*, and let it clean up until it is cancelled once more.

    A GeneratorExit passes through most code that swallows a cancellation. Unlike with `close()`,
    what the coroutine then awaits is passed to the event loop, because trio fails later if it never
    sees the end of a wait. If the coroutine ignores even the GeneratorExit, it is dropped at its
    next wait. (If it has a cancel scope open, that remains open, and anyio raises a RuntimeError
    that ends the run. There is no way to close the scope.)
    """
    step: Any = coroutine.throw
    argument: Any = GeneratorExit()
    cancellation: Any = None
    try:
        while True:
            try:
                awaited = step(argument)
            except (GeneratorExit, Exception):
                # StopIteration is the regular end. Other errors are dropped, because the item has
                # no outcome that could report them.
                return
            is_certain = current_effective_deadline() == -math.inf
            try:
                argument = yield awaited
                step = coroutine.send
            except BaseException as error:
                step, argument = coroutine.throw, error
            cancellation = _cancellation_in(argument)
            if cancellation is not None and is_certain:
                raise cancellation
    finally:
        del coroutine, step, argument, cancellation


def _warn_of_slow_step(worker: Worker, seconds: float, slow: float) -> None:
    logger.warning(
        "%s blocked the event loop for %.3f s, more than the %s s of slow_callback_duration. "
        "Make the task a plain function, which runs in a thread, or call the slow part with "
        "`await anyio.to_thread.run_sync(…)`.",
        worker.describe_position(),
        seconds,
        slow,
    )


def _warn_of_late_end(worker: Worker, watchdog: Watchdog) -> None:
    logger.warning(
        "%s still ran %s s after the run was cancelled (cancel_grace), and is abandoned. "
        "Do not swallow cancellations: raise again what a bare `except:`, `except BaseException:` "
        "or `except CancelledError:` catches.",
        worker.describe_position(),
        watchdog.cancel_grace,
    )


def as_coroutine(awaitable: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    """Return *awaitable*, or a coroutine that awaits it, for `drive()`."""
    return awaitable if isinstance(awaitable, types.CoroutineType) else _await(awaitable)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
