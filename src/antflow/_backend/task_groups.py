"""A task group beside the user's own code, from which errors come out as themselves."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import create_task_group, get_cancelled_exc_class
from anyio.abc import TaskGroup

from .._model.errors import leaf_exceptions

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def fatal_errors(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return what is in *errors*, without the cancellations that the others caused."""
    cancelled = get_cancelled_exc_class()
    return [error for error in leaf_exceptions(errors) if not isinstance(error, cancelled)]


def raise_fatal(fatal: list[BaseException]) -> None:
    """Raise what ended a run: one by itself, Ctrl-C before all others, else one flat group."""
    try:
        for error in fatal:
            if len(fatal) == 1 or isinstance(error, KeyboardInterrupt):
                raise error
        if fatal:
            raise BaseExceptionGroup("the run was ended by several errors", fatal)
    finally:
        # The traceback of each leads here.
        error = None  # type: ignore[assignment]
        del fatal, error


@asynccontextmanager
async def hosting_group() -> AsyncIterator[TaskGroup]:
    """
    Open a task group in which runs can live beside a body of the user's.

    What the body raises comes out as itself, and cancels the runs. What ends a run cancels the
    body, and comes out as itself.
    """
    fatal: list[BaseException] = []
    group_errors: list[BaseException] = []
    try:
        async with create_task_group() as group:
            try:
                yield group
            except BaseException as error:
                group.cancel_scope.cancel()
                if isinstance(error, get_cancelled_exc_class()):
                    raise
                fatal.append(error)
    except BaseExceptionGroup as errors:
        group_errors = fatal_errors(errors)
    try:
        raise_fatal(fatal + group_errors)
    finally:
        del fatal, group_errors
