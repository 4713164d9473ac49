"""What loop tasks are waiting for, found out from their frames, on both backends."""

from __future__ import annotations

# Each backend is asked for its own loop tasks; anyio does not say what they wait for.
import asyncio
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

import trio

# The functions in which a loop task waits for a thread: anyio's on asyncio, and trio's.
_THREAD_FUNCTIONS = {"run_sync_in_worker_thread", "to_thread_run_sync"}

# A loop task: its name, its coroutine, and whether it is blocked, that is waits for something that
# has not happened yet.
NamedTask = tuple[str, Any, bool]


def asyncio_tasks(loop: asyncio.AbstractEventLoop) -> Iterator[NamedTask]:
    """Yield the tasks of *loop* that are not done."""
    for task in asyncio.all_tasks(loop):
        waiter: Any = getattr(task, "_fut_waiter", None)
        yield task.get_name(), task.get_coro(), waiter is not None and not waiter.done()


def trio_tasks() -> Iterator[NamedTask]:
    """Yield the tasks of the current trio run, except trio's own system tasks."""
    pending: list[Any] = [trio.lowlevel.current_root_task()]
    while pending:
        for nursery in pending.pop().child_nurseries:
            for task in nursery.child_tasks:
                pending.append(task)
                if not task.name.startswith("<"):
                    yield task.name, task.coro, getattr(task, "_abort_func", None) is not None


def frames(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, the innermost last."""
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                coroutine = getattr(coroutine, f"{kind}_await", None) or getattr(
                    coroutine, "gi_yieldfrom", None
                )
                break
        else:
            return


def is_waiting_for_thread(tasks: Iterable[NamedTask]) -> bool:
    """
    Return whether any of *tasks* is blocked until a function in a thread returns.

    After the function has returned, the frames of the task stay the same until its next step, which
    a schedule may delay. Such a task is not blocked any more and does not count: otherwise the run
    would wait for it without end.
    """
    # A cheap test that almost always settles it.
    if threading.active_count() == 1:
        return False
    return any(
        is_blocked and frame.f_code.co_name in _THREAD_FUNCTIONS
        for _, coroutine, is_blocked in tasks
        for frame in frames(coroutine)
    )


def format_tasks(tasks: Iterable[NamedTask]) -> str:
    """Return a text that lists for each task the frames of its functions, the innermost last."""
    return "\n".join(sorted(_format_task(name, coroutine) for name, coroutine, _ in tasks))


def _format_task(name: str, coroutine: Any) -> str:
    lines = (
        f"\n    {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        for frame in frames(coroutine)
    )
    return f"  {name}{''.join(lines)}"
