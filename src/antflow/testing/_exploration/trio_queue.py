"""Makes trio run its tasks in the order that a schedule asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# The queue of trio's own runner is replaced.
import trio

from .schedule import ReadyQueue


def task_or_none(task: Any) -> Any:
    """
    Return *task*, or None if it is one of trio's system tasks.

    System tasks do what asyncio does in callbacks, so a schedule must not delay them. One of them
    wakes a task when its thread has returned: delayed, it would keep that task blocked.
    """
    return None if task.name.startswith("<") else task


class _TaskBatches:
    """
    Takes the place of the queue of ready tasks in trio's runner.

    trio takes all tasks out of its queue and runs them as one batch. Here each batch has at most
    one task.
    """

    def __init__(self, queue: ReadyQueue, runner: Any) -> None:
        self._queue = queue
        self._runner = runner

    def __len__(self) -> int:
        if self._runner.waiting_for_idle:
            # A held task could run, so wait_all_tasks_blocked() must not return before it has.
            self._queue.release_held(wait=False)
        return len(self._queue)

    def append(self, task: Any) -> None:
        self._queue.append(task)

    def __iter__(self) -> Iterator[Any]:
        if self._queue:
            task = self._queue.popleft()
            if task is not None:
                yield task

    def clear(self) -> None:
        """No-op: trio calls this for each batch, whose task has left the queue already."""


class ScheduleInstrument(trio.abc.Instrument):
    """
    Makes a trio run ask a queue what to run next.

    It replaces `runq` of trio's runner. There is no public API for that.

    Args:
        queue: The queue, which must be empty.
    """

    def __init__(self, queue: ReadyQueue) -> None:
        self._queue = queue

    def before_run(self) -> None:
        runner: Any = trio._core._run.GLOBAL_RUN_CONTEXT.runner  # pyright: ignore
        assert not runner.runq
        runner.runq = _TaskBatches(self._queue, runner)


def lift_shields() -> None:
    """Remove the shields of all cancel scopes in the current run."""
    pending: list[Any] = [trio.lowlevel.current_root_task()]
    while pending:
        task = pending.pop()
        status = task._cancel_status
        while status is not None:
            status._scope.shield = False
            status = status._parent
        for nursery in task.child_nurseries:
            pending += nursery.child_tasks
