"""Makes the tasks of trio take turns as a schedule says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio

from .schedule import ReadyQueue


def task_of(task: Any) -> Any:
    """
    Return *task*, or None if it is one of trio's own, which do what asyncio does in callbacks.

    One of them tells a task that its thread has returned: held back, it would leave that waiting.
    """
    return None if task.name.startswith("<") else task


class _Batches:
    """
    What trio takes for the queue of its tasks, of which it runs all, in one batch after the other.

    Each batch has one task.
    """

    def __init__(self, queue: ReadyQueue, runner: Any) -> None:
        self._queue = queue
        self._runner = runner

    def __len__(self) -> int:
        if self._runner.waiting_for_idle:
            # Who is held back could run, so not all are blocked.
            self._queue.let_go(wait=False)
        return len(self._queue)

    def append(self, task: Any) -> None:
        self._queue.append(task)

    def __iter__(self) -> Iterator[Any]:
        if self._queue:
            task = self._queue.popleft()
            if task is not None:
                yield task

    def clear(self) -> None:
        """Do nothing: what was given is not in the queue any more."""


class Explored(trio.abc.Instrument):
    """
    Lets *queue* stand in for the queue of a trio run.

    It relies on `runq` of trio's runner: there is no public way.
    """

    def __init__(self, queue: ReadyQueue) -> None:
        self._queue = queue

    def before_run(self) -> None:
        runner: Any = trio._core._run.GLOBAL_RUN_CONTEXT.runner  # pyright: ignore
        assert not runner.runq
        runner.runq = _Batches(self._queue, runner)


def lift_shields() -> None:
    """Let cancellations reach all tasks of the present run."""
    pending: list[Any] = [trio.lowlevel.current_root_task()]
    while pending:
        task = pending.pop()
        status = task._cancel_status
        while status is not None:
            status._scope.shield = False
            status = status._parent
        for nursery in task.child_nurseries:
            pending += nursery.child_tasks
