"""Runs an async function under a schedule, and calls hooks at chosen steps."""

from __future__ import annotations

# cancel_natively() needs asyncio's own task; anyio only offers cancel scopes.
import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import anyio
from anyio import CancelScope

from .asyncio_loop import ScheduledLoop, task_of_handle
from .blocked_tasks import NamedTask, asyncio_tasks, format_tasks, trio_tasks
from .clock import virtual_clock
from .schedule import Decision, ReadyQueue
from .trio_queue import ScheduleInstrument, lift_shields, task_or_none

T = TypeVar("T")

# How many more steps and callbacks a stuck run may take to clean up each time it is stopped.
_CLEANUP_STEPS = 10_000


class Deadlock(Exception):  # noqa: N818 - the standard term
    """
    No task can run, no timer is set and no thread is running.

    The message lists the loop tasks, with the frames in which each one waits, and the decisions of
    the schedule that were applied.
    """


class Livelock(Exception):  # noqa: N818 - the standard term
    """
    The run did not end within *max_steps* steps.

    The message lists the loop tasks, with the frames in which each one is, and the decisions of the
    schedule that were applied.
    """


class Exploration:
    """
    One run of an async function, with control over its order and with hooks at its steps.

    The same function, schedule and hooks give the same run on every Python version, as long as the
    function uses neither threads nor the time of day. Sleeping takes no real time. Create a new
    exploration for each run.

    Args:
        backend: "asyncio" (the default) or "trio". uvloop cannot be explored, since its queue is
            not accessible.
        schedule: Departures from the default order, by rising steps; see `Decision`,
            `random_schedule` and `schedules`. By default there are none.
        hooks: By step number, from 0: the function to call before that step, with the exploration
            as its argument. `cancel`, `cancel_natively`, `interrupt`, `kill`, or your own. A hook
            for a step that the run does not reach is not called.
        max_steps: A run that takes more steps raises `Livelock`. Callbacks of the event loop, and
            what passes for them during a pause, count as well. Default 100,000.

    Attributes:
        backend: As given.
        max_steps: As given. It rises when a run exceeds it, so that the run can clean up.
        steps: The number of steps so far, or until the function ended.
        decisions: The decisions of the schedule that were applied. Passed as a schedule, they give
            the same run again.
        trace: The number of the task that made each step. Tasks are numbered from 0, in the order
            in which they were first ready to run.
        cancelled: Whether `cancel` was called as a hook.

    Raises:
        ValueError: The backend is unknown, or `cancel_natively` is a hook for trio.
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
            raise ValueError("trio has no Task.cancel(). For trio, use the hook cancel instead.")
        task_of = task_of_handle if backend == "asyncio" else task_or_none
        self._queue = ReadyQueue(task_of, schedule, self._before_step)
        self._next_hook = 0
        self._final_steps: int | None = None
        self._scope: CancelScope | None = None
        self._main: asyncio.Task[Any] | None = None
        self._stuck_error: Deadlock | Livelock | None = None
        # How often a stuck run was asked to end.
        self._stop_attempts = 0

    @property
    def steps(self) -> int:
        return self._queue.steps if self._final_steps is None else self._final_steps

    @property
    def decisions(self) -> list[Decision]:
        return self._queue.decisions

    @property
    def trace(self) -> list[int]:
        return self._queue.trace

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T | None:
        """
        Run ``function(*args)`` until it returns.

        Args:
            function: An async function.
            args: Its positional arguments.

        Returns:
            What it returned, or None if `cancel` ended it.

        Raises:
            Deadlock: No task could run any more.
            Livelock: The run took more than *max_steps* steps.
            RuntimeError: This version of asyncio or trio cannot be explored.
            BaseException: What *function* raised, unchanged.
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
                # The steps in which the loop shuts down do not count.
                self._final_steps = self._queue.steps

        try:
            return anyio.run(main, backend=self.backend, backend_options=self._options())
        finally:
            if self._stuck_error is not None:
                # Any other exception is a consequence of the run being stopped.
                raise self._stuck_error from None

    def _options(self) -> dict[str, Any]:
        if self.backend == "asyncio":
            return {"loop_factory": lambda: ScheduledLoop(self._queue, self._idle)}
        return {
            "clock": virtual_clock(self._idle),
            "instruments": [ScheduleInstrument(self._queue)],
        }

    def _check_queue(self) -> None:
        if not self.steps:
            raise RuntimeError(
                f"antflow.testing cannot control the order of tasks in this version of "
                f"{self.backend}: it does not find the queue of the event loop. Please report it."
            )

    def _before_step(self, step: int) -> None:
        if step == self._next_hook and self._final_steps is None:
            # Called once per step, although several tasks may be held back before that step.
            self._next_hook += 1
            hook = self._hooks.get(step)
            if hook is not None:
                hook(self)
        if self._queue.ticks > self.max_steps:
            self.max_steps += _CLEANUP_STEPS
            self._stop(
                Livelock, f"the run did not end after {self._queue.ticks} steps and callbacks"
            )

    def _idle(self, has_timer: bool) -> bool:
        """Release held tasks and return True; without any, and without a timer, stop the run."""
        if self._queue.release_held(wait=has_timer):
            return True
        if not has_timer:
            message = f"after {self.steps} steps no task can run and no timer is set"
            self._stop(Deadlock, message)
        return not has_timer

    def _stop(self, kind: type[Deadlock | Livelock], message: str) -> None:
        """
        Stop a run that is stuck, each time it is called by stronger means.

        1. Cancel the scope around the function.
        2. On trio, remove all shields, so that the cancellation reaches every task.
        3. Raise the error out of the event loop. On asyncio, where this is the second step, the
           runner then cancels each task natively, which no shield stops.
        """
        self._stop_attempts += 1
        if self._stuck_error is None:
            decisions = "".join(f"\n  {decision}" for decision in self.decisions) or " none"
            self._stuck_error = kind(
                f"{message}. Loop tasks:\n{format_tasks(self._tasks())}\n"
                f"Decisions of the schedule:{decisions}"
            )
        if self._stop_attempts == 1 and self._scope is not None:
            self._scope.cancel()
        elif self._stop_attempts == 2 and self.backend == "trio":
            lift_shields()
        else:
            raise self._stuck_error

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
    Run ``function(*args)`` under a schedule: a shortcut for `Exploration` and its `run()`.

    With hypothesis, a failing schedule shrinks to the few decisions that matter::

        @given(schedule=schedules())
        def test_results_are_in_input_order(schedule):
            results = explore(pipeline.run, range(9), backend="trio", schedule=schedule)
            assert results.values == list(range(9))

    Args:
        function: An async function.
        args: Its positional arguments.
        backend: As for `Exploration`.
        schedule: As for `Exploration`.
        hooks: As for `Exploration`.
        max_steps: As for `Exploration`.

    Returns:
        What the function returned, or None if `cancel` ended it.

    Raises:
        ValueError: The backend is unknown, or `cancel_natively` is a hook for trio.
        Deadlock: No task could run any more.
        Livelock: The run took more than *max_steps* steps.
        RuntimeError: This version of asyncio or trio cannot be explored.
        BaseException: What the function raised, unchanged.
    """
    exploration = Exploration(backend, schedule, hooks=hooks, max_steps=max_steps)
    return exploration.run(function, *args)


def cancel(exploration: Exploration) -> None:
    """Hook: cancel the scope around the function."""
    exploration.cancelled = True
    if exploration._scope is not None:
        exploration._scope.cancel()


def cancel_natively(exploration: Exploration) -> None:
    """Hook for asyncio: call `asyncio.Task.cancel()` on the task that runs the function."""
    if exploration._main is not None:
        exploration._main.cancel()


def interrupt(exploration: Exploration) -> None:
    """Hook: raise SIGINT, as Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


def kill(exploration: Exploration) -> None:
    """
    Hook: end the process with SIGKILL, as a crash does. Use it in a subprocess.

    Windows has no SIGKILL.
    """
    os.kill(os.getpid(), signal.SIGKILL)
