"""Starts a loop task outside any task group, for a stream that is iterated without a block."""

from __future__ import annotations

# anyio starts loop tasks in task groups only. A group that an abandoned iterator holds open
# corrupts the loop task in which it was opened. So the functions of each backend are used.
import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from .context import on_asyncio

# asyncio keeps only weak references to its tasks.
_tasks: set[asyncio.Task[None]] = set()


def start_in_background(
    function: Callable[[], Awaitable[None]], failed: Callable[[BaseException], None]
) -> Callable[[Callable[[], None]], None]:
    """
    Run *function* in a loop task of its own, until it ends or the loop does.

    Args:
        function: An async function; it is cancelled when the loop shuts down.
        failed: Called with what *function* raised, unless that is a cancellation.

    Returns:
        A function that schedules a callback in the loop, from any thread; no-op once the loop is
        closed.
    """
    if on_asyncio():
        return _on_asyncio(function, failed)
    return _on_trio(function, failed)


def _on_asyncio(
    function: Callable[[], Awaitable[None]], failed: Callable[[BaseException], None]
) -> Callable[[Callable[[], None]], None]:
    loop = asyncio.get_running_loop()

    async def host() -> None:
        try:
            await function()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            failed(error)

    task = loop.create_task(host())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)

    def call_soon(callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(callback)

    return call_soon


def _on_trio(
    function: Callable[[], Awaitable[None]], failed: Callable[[BaseException], None]
) -> Callable[[Callable[[], None]], None]:
    trio: Any = sys.modules["trio"]

    async def host() -> None:
        try:
            await function()
        except trio.Cancelled:
            raise
        except BaseException as error:
            failed(error)

    trio.lowlevel.spawn_system_task(host, context=copy_context())
    token = trio.lowlevel.current_trio_token()

    def call_soon(callback: Callable[[], None]) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(callback)

    return call_soon
