"""Takes a task function from step to step: how long each takes, and whether it ends in time."""

from __future__ import annotations

import math
import types
from collections.abc import Coroutine, Generator
from time import perf_counter
from typing import Any

from anyio import current_effective_deadline, current_time, get_cancelled_exc_class
from attrs import define, field

from .._events.event_bus import logger
from .._state.worker import Worker


def _cancellation_in(answer: Any) -> BaseException | None:
    """
    Return the cancellation with which a wait ended, if it did.

    asyncio throws it into the task. trio sends the outcome of the wait, which raises it there.
    """
    error = answer if isinstance(answer, BaseException) else getattr(answer, "error", None)
    return error if isinstance(error, get_cancelled_exc_class()) else None


@define(eq=False)
class Watchdog:
    """
    What the tasks of one run are watched for.

    Attributes:
        slow_callback_duration: How many seconds a step may take; None for any.
        cancel_grace: For how many seconds a task may go on once the run is cancelled; None for any.
        cancelled: Whether the run is cancelled. A scope of the task's own does not count.
        since: The time of the loop when the first task heard of that.
    """

    slow_callback_duration: float | None
    cancel_grace: float | None
    cancelled: bool = field(default=False, init=False)
    since: float | None = field(default=None, init=False)

    def alarm(self) -> None:
        """Hear that the run is being cancelled, before its tasks do."""
        self.cancelled = True

    def grace_is_over(self) -> bool:
        """Say whether a task of the cancelled run, which has heard of that, must be at its end."""
        if self.cancel_grace is None:
            return False
        now = current_time()
        if self.since is None:
            self.since = now
        return now - self.since >= self.cancel_grace


def make_guard(slow_callback_duration: float | None, cancel_grace: float | None) -> Watchdog | None:
    """Return the guard of a new run; None if there is nothing to watch for."""
    if slow_callback_duration is None and cancel_grace is None:
        return None
    return Watchdog(slow_callback_duration, cancel_grace)


@types.coroutine
def drive(
    coroutine: Coroutine[Any, Any, Any], worker: Worker, guard: Watchdog
) -> Generator[Any, Any, Any]:
    """
    Await *coroutine*, which *worker* is at: what it awaits is handed to the loop, and back.

    Not every cancellation that comes is that of the run: scopes of the task's own have theirs, and
    so has each `sleep()` of trio. So those count that end a wait which was bound to be cancelled
    when it began. Of the first of these the task hears as usual, and after the last the grace is
    over.
    """
    slow = math.inf if guard.slow_callback_duration is None else guard.slow_callback_duration
    heard = exposed = False
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
            if guard.cancelled:
                exposed = current_effective_deadline() == -math.inf
            # Outside of the except block: what the task raises must not have this as context.
            try:
                argument = yield awaited
                step = send
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                step, argument = coroutine.throw, error
            if guard.cancelled:
                cancellation = _cancellation_in(argument)
                if cancellation is not None:
                    if guard.grace_is_over() and exposed and heard:
                        _warn_of_going_on(worker, guard)
                        yield from _give_up(coroutine)
                        raise cancellation
                    heard = heard or exposed
    finally:
        # Now, and not when the error is freed, at whatever time and place that is. And the error
        # holds this frame, which must not hold the error.
        del coroutine, send, step, argument, cancellation


def _give_up(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, None]:
    """
    Close *coroutine*, and let it clean up, until it hears of its cancellation once more.

    A GeneratorExit passes most of what catches a cancellation. Unlike with `close()`, what the
    coroutine awaits then is handed to the loop: trio is confused by a wait which it never sees. If
    even this ends nothing, the coroutine is dropped where it stands, here and now: without a loop
    it might never wait, and so never come to an end. (A scope that it has open then stays open, and
    anyio makes a RuntimeError of that, with which the run ends. There is no way to close it.)
    """
    step: Any = coroutine.throw
    argument: Any = GeneratorExit()
    cancellation: Any = None
    try:
        while True:
            try:
                awaited = step(argument)
            except (GeneratorExit, Exception):
                # With StopIteration it is at its end, and other errors of its have nobody to
                # tell: its item is neither done nor failed.
                return
            exposed = current_effective_deadline() == -math.inf
            try:
                argument = yield awaited
                step = coroutine.send
            except BaseException as error:
                step, argument = coroutine.throw, error
            cancellation = _cancellation_in(argument)
            if cancellation is not None and exposed:
                raise cancellation
    finally:
        del coroutine, step, argument, cancellation


def _warn_of_slow_step(worker: Worker, seconds: float, slow: float) -> None:
    logger.warning(
        "%s held the loop for %.3f s, where %s s are allowed (slow_callback_duration): all else "
        "waited. Make the task a plain function, which runs in a thread, or call what takes long "
        "with `await anyio.to_thread.run_sync(…)`.",
        worker.describe_position(),
        seconds,
        slow,
    )


def _warn_of_going_on(worker: Worker, guard: Watchdog) -> None:
    logger.warning(
        "%s goes on although the run was cancelled, and %s s have passed (cancel_grace): it is "
        "given up. Let a cancellation pass: what a bare `except:`, `except BaseException:` or "
        "`except CancelledError:` catches must be raised again.",
        worker.describe_position(),
        guard.cancel_grace,
    )
