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
from .context import on_asyncio


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


def current_token() -> Any:
    """Return what identifies the loop of the caller: see `Loop.token`."""
    if on_asyncio():
        return asyncio.get_running_loop()
    return sys.modules["trio"].lowlevel.current_trio_token()


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


def check_loop(token: Any, method: str) -> None:
    """
    Reject a call from another loop than that of the run, where it would wait forever.

    Args:
        token: The `Loop.token` of the run; None if it has not started.
        method: The name of the method that was called.

    Raises:
        PipelineError: The caller runs in another loop, or in none.
    """
    if token is None:
        return
    try:
        if current_token() is token:
            return
    except NoEventLoopError:
        pass
    if isinstance(token, asyncio.AbstractEventLoop):
        native = f"asyncio.run_coroutine_threadsafe(pipeline.{method}(…), loop)"
        inside = f"loop.call_soon_threadsafe(loop.create_task, pipeline.{method}(…))"
    else:
        native = f"trio.from_thread.run(pipeline.{method}, …, trio_token=token)"
        inside = "token.run_sync_soon(…)"
    raise PipelineError(
        f"{method}() was called in thread {threading.current_thread().name!r}, outside of the "
        "event loop that the run belongs to, and would wait forever there. In the loop of the run, "
        "take `token = anyio.lowlevel.current_token()`. In another thread, write "
        f"`anyio.from_thread.run(pipeline.{method}, …, token=token)`, or, without anyio, "
        f"`{native}`. In another loop, which must not block, write "
        f"`await anyio.to_thread.run_sync(…)` around that call, or `{inside}`."
    )
