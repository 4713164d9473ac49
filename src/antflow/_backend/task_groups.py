"""Task groups: what a run starts loop tasks with, and how the errors of a group come out."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any, NoReturn

from anyio import get_cancelled_exc_class
from attrs import frozen

from .._model.describe import leaf_exceptions

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


@frozen(eq=False)
class RunTasks:
    """
    The loop tasks that carry the items of one run.

    Attributes:
        start: ``start(coroutine, name=…)`` starts another, in the context of the run.
        cancel: Cancels all of them, and nothing else.
    """

    start: Callable[..., Any]
    cancel: Callable[[], None]


def fatal_errors(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the errors in the group *errors*, without the cancellations that they caused."""
    cancelled = get_cancelled_exc_class()
    return [error for error in leaf_exceptions(errors) if not isinstance(error, cancelled)]


def raise_fatal(fatal: list[BaseException]) -> NoReturn:
    """Raise the errors that ended a run: one as itself, Ctrl-C first, several in a flat group."""
    try:
        for error in fatal:
            if len(fatal) == 1 or isinstance(error, KeyboardInterrupt):
                raise error
        raise BaseExceptionGroup("the run was ended by several errors", fatal)
    finally:
        # The traceback of each refers to this frame.
        error = None  # type: ignore[assignment]
        del fatal, error


def raise_attribute(owner: Any, name: str) -> None:
    """Raise the error in attribute *name* of *owner*, and set that to None."""
    error = getattr(owner, name)
    setattr(owner, name, None)
    try:
        raise error
    finally:
        # Its traceback refers to this frame.
        del error


async def close_generator(generator: AsyncGenerator[Any, Any]) -> None:
    """
    Close *generator*, which may hold a task group open.

    Such a group makes an exception group of the GeneratorExit with which it is closed.
    """
    try:
        await generator.aclose()
    except BaseExceptionGroup as errors:
        others = [leaf for leaf in leaf_exceptions(errors) if not isinstance(leaf, GeneratorExit)]
        if others:
            raise
