"""The functions that users give: their names, and whether they must be awaited."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import GeneratorType
from typing import Any

from attrs import frozen


def _unwrap(function: Any) -> Any:
    """Return the function inside a partial, or inside a partial of a partial."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def task_name(task: Callable[..., Any]) -> str:
    """
    Return the name of *task* in limits, events and failures.

    It is the ``__name__`` of the function or method, or of the function inside a partial; for any
    other callable object it is the name of its class.
    """
    task = _unwrap(task)
    name = getattr(task, "__name__", None)
    return name if isinstance(name, str) else type(task).__name__


def handler_name(handler: Callable[..., Any]) -> str:
    """Return the qualified name of a callback, for the log."""
    handler = _unwrap(handler)
    name = getattr(handler, "__qualname__", None)
    return name if isinstance(name, str) else type(handler).__qualname__


def is_async(task: Callable[..., Any]) -> bool:
    """Return whether calling *task* certainly returns an awaitable."""
    task = _unwrap(task)
    # An object with an async __call__ is not a coroutine function itself. Its class is looked at,
    # because calling a class makes an instance, whatever its instances can do.
    call = getattr(type(task), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(task) or inspect.iscoroutinefunction(call)


def is_awaitable(outcome: object) -> bool:
    """
    Return whether *outcome*, which a function of the user returned, can be awaited.

    Like `inspect.isawaitable`, but it looks at the class only: *outcome* may be any value, and some
    raise when they are asked for an attribute.
    """
    return issubclass(type(outcome), Awaitable) or (
        type(outcome) is GeneratorType
        and bool(outcome.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)
    )


@frozen(eq=False)
class TaskFunction:
    """
    A task of a stage, and what is known of it when the stage is built.

    Attributes:
        function: What the user gave.
        name: Its `task_name`.
        is_async: Whether calling it certainly returns an awaitable. If not, it runs in a thread.
    """

    function: Callable[..., Any]
    name: str
    is_async: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> TaskFunction:
        """Look at *function*."""
        return cls(function, task_name(function), is_async(function))
