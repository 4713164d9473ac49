"""Task groups: how the lower layers start loop tasks, and how the errors of a group are raised."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

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


def raise_fatal(fatal: list[BaseException]) -> None:
    """Raise a KeyboardInterrupt or a single error as itself, and several errors in a flat group."""
    try:
        for error in fatal:
            if len(fatal) == 1 or isinstance(error, KeyboardInterrupt):
                raise error
        if fatal:
            raise BaseExceptionGroup("the run was ended by several errors", fatal)
    finally:
        # The traceback of each error refers to this frame.
        error = None  # type: ignore[assignment]
        del fatal, error


def raise_attribute(owner: Any, name: str) -> None:
    """Raise the error in attribute *name* of *owner*, and set the attribute to None."""
    error = getattr(owner, name)
    setattr(owner, name, None)
    try:
        raise error
    finally:
        # Its traceback refers to this frame.
        del error
