"""The event loop that a run belongs to: calls into it from elsewhere, and calls that miss it."""

from __future__ import annotations

# anyio calls into a loop from other threads only, and not from a signal handler or a finalizer.
import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

from anyio import NoEventLoopError
from attrs import frozen

from .._model.errors import PipelineError
from .context import Host, current_token, on_asyncio


@frozen(eq=False)
class Loop:
    """
    A running event loop.

    Attributes:
        token: The asyncio loop, or the token of trio.
        call_soon: Schedules a callback in the loop: from any thread, signal handler or finalizer.
            It returns whether the loop runs, and so will call it; it never raises.
    """

    token: Any
    call_soon: Callable[[Callable[[], object]], bool]


def current_loop() -> Loop:
    """Return the loop of the caller."""
    token = current_token()
    return Loop(token, _asyncio_caller(token) if on_asyncio() else _trio_caller(token))


def _asyncio_caller(loop: asyncio.AbstractEventLoop) -> Callable[[Callable[[], object]], bool]:
    def call_soon(callback: Callable[[], object]) -> bool:
        try:
            loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed
            return False
        return loop.is_running()

    return call_soon


def _trio_caller(token: Any) -> Callable[[Callable[[], object]], bool]:
    trio: Any = sys.modules["trio"]

    def call_soon(callback: Callable[[], object]) -> bool:
        try:
            token.run_sync_soon(callback)
        except trio.RunFinishedError:
            return False
        return True

    return call_soon


def check_loop(host: Host | None, method: str) -> None:
    """
    Reject a call from another loop than that of the run, where it would wait forever.

    Args:
        host: The host of the run; None if the run has not started, or has ended.
        method: The name of the method that was called.

    Raises:
        PipelineError: The caller runs in another loop, or in none.
    """
    if host is None:
        return
    try:
        if current_token() is host.token:
            return
    except NoEventLoopError:
        pass
    items = "items" if method == "feed" else ""
    function = f"pipeline.{method}{items and ', items'}"
    call = f"anyio.from_thread.run({function}, token=token)"
    if isinstance(host.token, asyncio.AbstractEventLoop):
        native = f"asyncio.run_coroutine_threadsafe(pipeline.{method}({items}), loop).result()"
        soon = f"loop.call_soon_threadsafe(loop.create_task, pipeline.{method}({items}))"
    else:
        native = f"trio.from_thread.run({function}, trio_token=trio_token)"
        soon = f"trio_token.run_sync_soon(nursery.start_soon, {function})"
    raise PipelineError(
        f"{method}() was called in thread {threading.current_thread().name!r}, not in the event "
        "loop that the run belongs to: it would wait forever. In that loop, take `token = "
        f"anyio.lowlevel.current_token()`. In another thread, write `{call}`, or, without anyio, "
        f"`{native}`. To go on without waiting, write `{soon}`. In another loop, which must not "
        "block, make the call in a thread: `await anyio.to_thread.run_sync(…)`."
    )
