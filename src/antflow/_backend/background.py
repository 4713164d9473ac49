"""Starts a loop task outside any task group, for a stream that is iterated without a block."""

from __future__ import annotations

# anyio starts loop tasks in task groups only. A group that an abandoned iterator holds open
# corrupts the loop task in which it was opened. So the functions of each backend are used.
import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from anyio import get_cancelled_exc_class

from .context import on_asyncio
from .loops import current_loop

# asyncio keeps only weak references to its tasks.
_tasks: set[asyncio.Task[None]] = set()


def start_in_background(
    function: Callable[[], Awaitable[None]], failed: Callable[[BaseException], None]
) -> Callable[[Callable[[], object]], bool]:
    """
    Run *function* in a loop task of its own, until it ends or the loop does.

    Args:
        function: An async function; it is cancelled when the loop shuts down.
        failed: Called with what *function* raised, unless that is a cancellation.

    Returns:
        `Loop.call_soon` of the loop.
    """
    cancelled = get_cancelled_exc_class()

    async def host() -> None:
        try:
            await function()
        except cancelled:
            raise
        except BaseException as error:
            failed(error)

    if on_asyncio():
        task = asyncio.get_running_loop().create_task(host())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
    else:
        lowlevel: Any = sys.modules["trio"].lowlevel
        lowlevel.spawn_system_task(host, context=copy_context())
    return current_loop().call_soon
