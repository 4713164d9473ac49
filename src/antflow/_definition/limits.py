"""Concurrency limits: how many attempts of a task may run at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anyio import Semaphore, WouldBlock

from .callables import task_name
from .validation import check_int, reject_argument


def check_limits(owner: str, limits: Any) -> None:
    """Refuse *limits* unless it maps task names to whole numbers of at least 1."""
    if not isinstance(limits, Mapping):
        reject_argument(owner, "task_concurrency_limits", "a dict of task names and limits", limits)
    for key, limit in limits.items():
        if not isinstance(key, str):
            hint = f"Write {task_name(key)!r}." if callable(key) else None
            reject_argument(
                owner, "each key of task_concurrency_limits", "the name of a task", key, hint
            )
        check_int(owner, f"task_concurrency_limits[{key!r}]", limit, at_least=1)


class TaskLimits:
    """
    The limits of one run, or of one stage in it, by task name.

    Waiters are served first come, first served.
    """

    __slots__ = ("_semaphores",)

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._semaphores = {
            name: Semaphore(limit, max_value=limit, fast_acquire=True)
            for name, limit in limits.items()
        }

    def of(self, task_name: str) -> tuple[Semaphore, ...]:
        """Return the semaphore that holds attempts of *task_name* back, in a tuple; or nothing."""
        semaphore = self._semaphores.get(task_name)
        return () if semaphore is None else (semaphore,)


async def acquire_all(semaphores: Sequence[Semaphore]) -> None:
    """
    Take all of *semaphores*, and never wait for one while holding another.

    Invariant: whenever this awaits, it holds nothing; so neither a deadlock nor an idle permit can
    come from it, and a cancellation has nothing to give back.
    """
    order = list(semaphores)
    while True:
        await order[0].acquire()
        for index in range(1, len(order)):
            try:
                order[index].acquire_nowait()
            except WouldBlock:
                for held in order[:index]:
                    held.release()
                # Next time, wait for the one that was missing.
                order.insert(0, order.pop(index))
                break
        else:
            return


def release_all(semaphores: Sequence[Semaphore]) -> None:
    """Give all of *semaphores* back."""
    for semaphore in semaphores:
        semaphore.release()
