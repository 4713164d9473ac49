"""Looks at the functions that users hand in: their names, and whether they must be awaited."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import GeneratorType
from typing import Any


def _unwrap(function: Any) -> Any:
    """Return the function inside a partial, or inside a partial of a partial."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def task_name(task: Callable[..., Any]) -> str:
    """
    Return the name by which limits, events and failures speak of *task*.

    It is the ``__name__`` of the function or method, that of the function inside a partial, or
    the name of the class of any other callable object.
    """
    task = _unwrap(task)
    name = getattr(task, "__name__", None)
    return name if isinstance(name, str) else type(task).__name__


def handler_name(handler: Callable[..., Any]) -> str:
    """Return the qualified name by which the log speaks of a callback."""
    handler = _unwrap(handler)
    name = getattr(handler, "__qualname__", None)
    return name if isinstance(name, str) else type(handler).__qualname__


def is_async(task: Callable[..., Any]) -> bool:
    """Say whether calling *task* is sure to give an awaitable."""
    task = _unwrap(task)
    # An object with an async __call__ is no coroutine function itself. Its class is asked: calling
    # a class makes an instance, whatever its instances can do.
    call = getattr(type(task), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(task) or inspect.iscoroutinefunction(call)


def is_awaitable(outcome: object) -> bool:
    """
    Say whether *outcome*, which a function of the user returned, can be awaited.

    As `inspect.isawaitable` does, but its class is asked and not itself: it may be any value.
    """
    return issubclass(type(outcome), Awaitable) or (
        type(outcome) is GeneratorType
        and bool(outcome.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)
    )
