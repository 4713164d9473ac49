"""What tasks are waiting for: told from their frames, on both backends."""

from __future__ import annotations

# Both loops are asked for their tasks.
import asyncio
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

import trio

# The functions in which a task waits for a thread: of anyio on asyncio, of trio.
_IN_THREAD = {"run_sync_in_worker_thread", "to_thread_run_sync"}

# A task, by its name and its coroutine; and whether it waits for something that is not there yet.
NamedTask = tuple[str, Any, bool]


def asyncio_tasks(loop: asyncio.AbstractEventLoop) -> Iterator[NamedTask]:
    """Give the tasks of *loop* that are not done."""
    for task in asyncio.all_tasks(loop):
        waiter: Any = getattr(task, "_fut_waiter", None)
        yield task.get_name(), task.get_coro(), waiter is not None and not waiter.done()


def trio_tasks() -> Iterator[NamedTask]:
    """Give the tasks of the present trio run, but not those that trio has for itself."""
    pending: list[Any] = [trio.lowlevel.current_root_task()]
    while pending:
        for nursery in pending.pop().child_nurseries:
            for task in nursery.child_tasks:
                pending.append(task)
                if not task.name.startswith("<"):
                    yield task.name, task.coro, getattr(task, "_abort_func", None) is not None


def frames(coroutine: Any) -> Iterator[FrameType]:
    """Give the frames of a suspended coroutine, the innermost last."""
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


def a_thread_works(tasks: Iterable[NamedTask]) -> bool:
    """
    Say whether any of *tasks* waits for a function that runs in a thread.

    When that has returned, the task looks as before until it makes its next step. Where a schedule
    holds it back, nothing would ever be ready if that counted as waiting.
    """
    # Cheap, and almost always the answer.
    if threading.active_count() == 1:
        return False
    return any(
        waits and frame.f_code.co_name in _IN_THREAD
        for _, coroutine, waits in tasks
        for frame in frames(coroutine)
    )


def describe(tasks: Iterable[NamedTask]) -> str:
    """Say of each task where it waits: the frames of its functions, the innermost last."""
    return "\n".join(sorted(_describe(*task) for task in tasks))


def _describe(name: str, coroutine: Any, waits: bool) -> str:
    places = (
        f"\n    {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        for frame in frames(coroutine)
    )
    return f"  {name}{''.join(places)}"
