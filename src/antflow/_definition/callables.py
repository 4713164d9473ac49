"""The user's functions: their names, and whether they are async."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import GeneratorType
from typing import Any

from attrs import frozen


def _unwrap(function: Any) -> Any:
    """Return the function inside a partial, which may be nested."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def task_name(task: Callable[..., Any]) -> str:
    """
    Return the name of *task* in limits, events and failures.

    It is the ``__name__`` of the function or method, or of the function inside a partial. A
    callable object without a ``__name__`` is named after its class.
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
    """Return whether calling *task* is certain to return an awaitable."""
    task = _unwrap(task)
    # An object with an async __call__ is not a coroutine function itself. __call__ is looked up on
    # the type, because calling a class makes an instance, even if its instances have one.
    call = getattr(type(task), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(task) or inspect.iscoroutinefunction(call)


def is_awaitable(outcome: object) -> bool:
    """
    Return whether *outcome*, which a user's function returned, can be awaited.

    Like `inspect.isawaitable`, but it inspects the class only: *outcome* may be any value, and some
    values raise when an attribute is read.
    """
    return issubclass(type(outcome), Awaitable) or (
        type(outcome) is GeneratorType
        and bool(outcome.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)
    )


@frozen(eq=False)
class TaskFunction:
    """
    A task of a stage, with what is derived from it when the stage is built.

    Attributes:
        function: The user's function.
        name: Its `task_name`.
        is_async: Whether calling it is certain to return an awaitable. If not, it runs in a thread.
    """

    function: Callable[..., Any]
    name: str
    is_async: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> TaskFunction:
        """Inspect *function*."""
        return cls(function, task_name(function), is_async(function))
