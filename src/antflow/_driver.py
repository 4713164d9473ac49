"""Takes a task function from step to step: how long each takes, and whether it ends in time."""

from __future__ import annotations

import math
import types
from collections.abc import Coroutine, Generator
from time import perf_counter
from typing import Any

from anyio import current_time, get_cancelled_exc_class
from attrs import define, field

from ._bus import logger
from ._worker import Worker


@define(eq=False)
class Guard:
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

    def is_too_late(self, error: BaseException) -> bool:
        """Say whether *error*, thrown into a task, is a cancellation after the grace is over."""
        if not self.cancelled or self.cancel_grace is None:
            return False
        if not isinstance(error, get_cancelled_exc_class()):
            return False
        now = current_time()
        if self.since is None:
            self.since = now
        return now - self.since >= self.cancel_grace


def make_guard(slow_callback_duration: float | None, cancel_grace: float | None) -> Guard | None:
    """Return the guard of a new run; None if there is nothing to watch for."""
    if slow_callback_duration is None and cancel_grace is None:
        return None
    return Guard(slow_callback_duration, cancel_grace)


@types.coroutine
def drive(
    coroutine: Coroutine[Any, Any, Any], worker: Worker, guard: Guard
) -> Generator[Any, Any, Any]:
    """
    Await *coroutine*, which *worker* is at: what it awaits is handed to the loop, and back.

    When the grace is over, a task hears of its cancellation once more. Only if it goes on after
    that is it given up: the last cancellation may have been that of a time limit within a shield,
    with which it cleans up.
    """
    slow = math.inf if guard.slow_callback_duration is None else guard.slow_callback_duration
    told = False
    send = step = coroutine.send
    argument: Any = None
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
            # Outside of the except block: what the task raises must not have this as context.
            try:
                argument = yield awaited
                step = send
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                step, argument = coroutine.throw, error
            if step is send or not guard.is_too_late(argument):
                continue
            if told:
                _warn_of_going_on(worker, guard)
                yield from _give_up(coroutine)
                raise argument
            told = True
    finally:
        # Now, and not when the error is freed, at whatever time and place that is. And the error
        # holds this frame, which must not hold the error.
        del coroutine, send, step, argument


def _give_up(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, None]:
    """
    Close *coroutine*, and let it clean up, until it hears of its cancellation once more.

    A GeneratorExit passes most of what catches a cancellation. Unlike with `close()`, what the
    coroutine awaits then is handed to the loop: trio is confused by a wait which it never sees. If
    even this ends nothing, the coroutine is dropped where it stands.
    """
    step: Any = coroutine.throw
    argument: Any = GeneratorExit()
    try:
        while True:
            try:
                awaited = step(argument)
            except (GeneratorExit, Exception):
                # With StopIteration it is at its end, and other errors of its have nobody to
                # tell: its item is neither done nor failed.
                return
            try:
                argument = yield awaited
                step = coroutine.send
            except Exception as error:
                step, argument = coroutine.throw, error
    finally:
        del coroutine, step, argument


def _warn_of_slow_step(worker: Worker, seconds: float, slow: float) -> None:
    logger.warning(
        "%s held the loop for %.3f s, where %s s are allowed (slow_callback_duration): all else "
        "waited. Make the task a plain function, which runs in a thread, or call what takes long "
        "with `await anyio.to_thread.run_sync(…)`.",
        worker.whereabouts(),
        seconds,
        slow,
    )


def _warn_of_going_on(worker: Worker, guard: Guard) -> None:
    logger.warning(
        "%s goes on although the run was cancelled, and %s s have passed (cancel_grace): it is "
        "given up. Let a cancellation pass: what a bare `except:`, `except BaseException:` or "
        "`except CancelledError:` catches must be raised again.",
        worker.whereabouts(),
        guard.cancel_grace,
    )
