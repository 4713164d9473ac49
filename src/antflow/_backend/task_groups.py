"""Task groups: how the lower layers start loop tasks, and how the errors of a group are raised."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from anyio import get_cancelled_exc_class
from attrs import frozen

from .._model.describe import leaf_exceptions

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


@frozen(eq=False)
class RunTasks:
    """
    Starts and cancels the loop tasks of one run.

    Attributes:
        start: ``start(coroutine, name=…)`` starts a loop task in the context of the run.
        cancel: Cancels all loop tasks of the run, and nothing else.
    """

    start: Callable[..., Any]
    cancel: Callable[[], None]


def fatal_errors(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions in the group *errors* that are not cancellations."""
    cancelled = get_cancelled_exc_class()
    return [error for error in leaf_exceptions(errors) if not isinstance(error, cancelled)]


def raise_errors(errors: list[BaseException], message: str) -> NoReturn:
    """
    Raise *errors*, of which there is at least one; the list is emptied.

    A KeyboardInterrupt, or a single error, is raised as itself; several in one flat group.
    """
    try:
        for error in errors:
            if len(errors) == 1 or isinstance(error, KeyboardInterrupt):
                raise error
        # A copy, because the group refers to the list that it is given.
        raise BaseExceptionGroup(message, errors.copy())
    finally:
        # The traceback of each error refers to this frame and to those that called it.
        error = None  # type: ignore[assignment]
        errors.clear()
        del errors


def raise_attribute(owner: Any, name: str) -> None:
    """Raise the error in attribute *name* of *owner*, and set the attribute to None."""
    error = getattr(owner, name)
    setattr(owner, name, None)
    try:
        raise error
    finally:
        # Its traceback refers to this frame.
        del error


async def aclose(iterator: Any) -> None:
    """
    Close *iterator*: a generator, which may hold a task group open, or what else has ``aclose()``.

    Such a group makes an exception group of the GeneratorExit with which it is closed.
    """
    try:
        await iterator.aclose()
    except BaseExceptionGroup as errors:
        rest = errors.split(GeneratorExit)[1]
        if rest is not None:
            raise rest from None
