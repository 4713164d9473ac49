"""Runs a function under a schedule of one's choice, and does things to it at a step of choice."""

from __future__ import annotations

# A task of asyncio's can be cancelled by other means than a scope of anyio's.
import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import anyio
from anyio import CancelScope

from .asyncio_loop import ExploredLoop
from .asyncio_loop import task_of as task_of_handle
from .blocked_tasks import NamedTask, asyncio_tasks, describe, trio_tasks
from .clock import virtual_clock
from .schedule import Decision, ReadyQueue
from .trio_queue import Explored, lift_shields
from .trio_queue import task_of as task_itself

T = TypeVar("T")

# How many more steps a run has to end itself once it was cancelled for being stuck.
_LAST_STEPS = 10_000


class Deadlock(Exception):  # noqa: N818 - the field's word for it
    """
    Nothing can run, and no timer or thread will change that.

    The message tells of each task where it waits.
    """


class Livelock(Exception):  # noqa: N818 - the field's word for it
    """
    The run makes step after step without an end.

    The message tells of each task where it is.
    """


class Exploration:
    """
    One run under control: which task goes next, and what befalls it when.

    The same function with the same schedule and hooks makes the same run, on every Python, as long
    as it uses neither threads nor the time of day. Waiting takes no time.

    Args:
        backend: "asyncio" or "trio". (uvloop keeps its schedule to itself.)
        schedule: Departures from the plain order, by rising steps; see `Decision`,
            `random_schedule` and `schedules`.
        hooks: What to do before the step with that number, if the run gets so far: `cancel`,
            `cancel_natively`, `interrupt`, `kill`, or any function of the exploration.
        max_steps: After so many the run is a `Livelock`.

    Attributes:
        steps: How many steps were made until the function ended.
        decisions: Those decisions of the schedule whose time came: as a schedule, they make the
            same run again.
        trace: For each step the number of the task that made it.
        cancelled: Whether the run ended because of `cancel`.

    Raises:
        ValueError: There is no such backend; or a hook does not fit it.
    """

    def __init__(
        self,
        backend: str = "asyncio",
        schedule: Iterable[Decision] = (),
        *,
        hooks: Mapping[int, Callable[[Exploration], object]] | None = None,
        max_steps: int = 100_000,
    ) -> None:
        if backend not in ("asyncio", "trio"):
            raise ValueError(f"backend must be 'asyncio' or 'trio', got {backend!r}")
        self.backend = backend
        self.max_steps = max_steps
        self.cancelled = False
        self._hooks = dict(hooks or {})
        if backend == "trio" and cancel_natively in self._hooks.values():
            raise ValueError("trio has no Task.cancel(): for trio, use cancel as the hook")
        task_of = task_of_handle if backend == "asyncio" else task_itself
        self._queue = ReadyQueue(task_of, schedule, self._before_step)
        self._next_hook = 0
        self._ended: int | None = None
        self._scope: CancelScope | None = None
        self._main: asyncio.Task[Any] | None = None
        self._stuck: Deadlock | Livelock | None = None
        # To end a run that is stuck.
        self._attempts = 0

    @property
    def steps(self) -> int:
        return self._queue.steps if self._ended is None else self._ended

    @property
    def decisions(self) -> list[Decision]:
        return self._queue.decisions

    @property
    def trace(self) -> list[int]:
        return self._queue.trace

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T | None:
        """
        Run *function* to its end.

        Returns:
            What it returned; None if it was ended by `cancel`.

        Raises:
            Deadlock: Nothing could run any more.
            Livelock: There were more than *max_steps* steps.
            BaseException: What *function* raised.
        """

        async def main() -> T | None:
            self._check_queue()
            if self.backend == "asyncio":
                self._main = asyncio.current_task()
            try:
                with CancelScope() as self._scope:
                    if self.cancelled:
                        self._scope.cancel()
                    return await function(*args)
                return None
            finally:
                # What the loop does to end itself is none of our business.
                self._ended = self._queue.steps

        try:
            return anyio.run(main, backend=self.backend, backend_options=self._options())
        finally:
            if self._stuck is not None:
                # Whatever else came out did so because of this.
                raise self._stuck from None

    def _options(self) -> dict[str, Any]:
        if self.backend == "asyncio":
            return {"loop_factory": lambda: ExploredLoop(self._queue, self._idle)}
        return {"clock": virtual_clock(self._idle), "instruments": [Explored(self._queue)]}

    def _check_queue(self) -> None:
        if not self.steps:
            raise RuntimeError(
                f"this version of {self.backend} keeps what can run in a place that antflow.testing"
                " does not know: its schedules cannot be explored. Please report it."
            )

    def _before_step(self, step: int) -> None:
        if step == self._next_hook and self._ended is None:
            # Once for each step, although several tasks may be held back before it is made.
            self._next_hook += 1
            hook = self._hooks.get(step)
            if hook is not None:
                hook(self)
        if self._queue.ticks > self.max_steps:
            self.max_steps += _LAST_STEPS
            self._give_up(Livelock, f"the run did not end after {self._queue.ticks} steps")

    def _idle(self, timer: bool) -> bool:
        """See whether a task was held back; if none was, and no *timer* is set, give up."""
        if self._queue.let_go(wait=timer):
            return True
        if not timer:
            self._give_up(
                Deadlock, f"after {self.steps} steps nothing can run, and no timer is set"
            )
        return not timer

    def _give_up(self, kind: type[Deadlock | Livelock], message: str) -> None:
        """Cancel the run; the second time past all shields; and the third time, drop it."""
        self._attempts += 1
        if self._stuck is None:
            decisions = "".join(f"\n  {decision}" for decision in self.decisions) or " plain"
            self._stuck = kind(
                f"{message}. The tasks:\n{describe(self._tasks())}\nThe schedule:{decisions}"
            )
        if self._attempts == 1 and self._scope is not None:
            self._scope.cancel()
        elif self._attempts == 2 and self.backend == "trio":
            lift_shields()
        else:
            # On asyncio this cancels each task natively, and that reaches all.
            raise self._stuck

    def _tasks(self) -> Iterable[NamedTask]:
        if self.backend == "trio":
            return trio_tasks()
        return asyncio_tasks(asyncio.get_running_loop())


def explore(
    function: Callable[..., Awaitable[T]],
    *args: Any,
    backend: str = "asyncio",
    schedule: Iterable[Decision] = (),
    hooks: Mapping[int, Callable[[Exploration], object]] | None = None,
    max_steps: int = 100_000,
) -> T | None:
    """
    Run ``function(*args)`` under a schedule: short for `Exploration` and its `run()`.

    With hypothesis, a failure comes down to the few decisions that matter::

        @given(schedule=schedules())
        def test_results_are_in_input_order(schedule):
            results = explore(pipeline.run, range(9), backend="trio", schedule=schedule)
            assert results.values == list(range(9))
    """
    exploration = Exploration(backend, schedule, hooks=hooks, max_steps=max_steps)
    return exploration.run(function, *args)


def cancel(exploration: Exploration) -> None:
    """As a hook: cancel the scope around the function."""
    exploration.cancelled = True
    if exploration._scope is not None:
        exploration._scope.cancel()


def cancel_natively(exploration: Exploration) -> None:
    """As a hook, on asyncio: call `asyncio.Task.cancel` of the task that the function runs in."""
    if exploration._main is not None:
        exploration._main.cancel()


def interrupt(exploration: Exploration) -> None:
    """As a hook: be Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


def kill(exploration: Exploration) -> None:
    """As a hook: end the process, as a crash does. For a subprocess."""
    os.kill(os.getpid(), signal.SIGKILL)
