"""Turns a task into a call: an async function of one argument, with the options of the stage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from anyio import current_time, move_on_after

from .._definition.callables import TaskFunction, is_awaitable
from .._definition.stage import Stage
from .._executors.threads import ThreadExecutor

Call = Callable[[Any], Awaitable[Any]]


def make_call(task: TaskFunction, stage: Stage, executor: ThreadExecutor) -> Call:
    """Return the call of *task*: in a thread if it is not async, with the options of *stage*."""
    call: Callable[..., Awaitable[Any]]
    call = task.function if task.is_async else _in_thread(task.function, executor)
    if stage.unpack_args:
        call = _unpacking(call)
    if stage.task_timeout is not None:
        call = _timed(call, stage.task_timeout, f"task {task.name!r} of stage {stage.name!r}")
    return call


def _in_thread(
    function: Callable[..., Any], executor: ThreadExecutor
) -> Callable[..., Awaitable[Any]]:
    async def call_in_thread(*args: Any, **kwargs: Any) -> Any:
        result = await executor.call(function, args, kwargs)
        return await result if is_awaitable(result) else result

    return call_in_thread


def _unpacking(call: Callable[..., Awaitable[Any]]) -> Call:
    async def call_unpacked(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return await call(*value)
        if isinstance(value, dict):
            return await call(**value)
        return await call(value)

    return call_unpacked


def _timed(call: Call, seconds: float, label: str) -> Call:
    async def call_with_timeout(value: Any) -> Any:
        with move_on_after(seconds) as scope:
            value = await call(value)
        # Not `cancelled_caught`: a thread, or a task that does not await, cannot be interrupted. It
        # fails when it returns late.
        if scope.cancel_called or current_time() >= scope.deadline:
            raise TimeoutError(f"{label} took longer than its task_timeout of {seconds} s")
        return value

    return call_with_timeout
