"""Every exception that antflow raises on its own account."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .items import Results

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


class AntFlowError(Exception):
    """Base class of every antflow exception."""


class PipelineError(AntFlowError):
    """A pipeline was put together or used in a way that cannot work."""


class StageValidationError(PipelineError, ValueError):
    """
    A stage, its retry policy or the list of stages is not valid.

    Raised while the definition is built, or, for an argument of ``run()``, before the run begins.
    The message names the stage, the argument, what is allowed, and the value that came in.
    """


class TooManyFailuresError(PipelineError):
    """
    More items failed than ``max_failures`` allows, and the run was stopped.

    Attributes:
        results: What was finished before the stop, with its ``failures``.
        max_failures: The number of failures that was allowed.
    """

    def __init__(
        self, message: str, results: Results | None = None, max_failures: int | None = None
    ) -> None:
        super().__init__(message)
        self.results = results
        self.max_failures = max_failures


class TaskFailedError(AntFlowError):
    """
    One item failed for good; the task's own exception is the ``__cause__``.

    Attributes:
        item_id: The id of the item.
        stage: The name of the stage in which it failed.
        task_name: The name of the task that raised.
        attempts: How often that task, or that stage when it retries as a whole, was tried.
    """

    def __init__(
        self,
        message: str,
        item_id: object = None,
        stage: str | None = None,
        task_name: str | None = None,
        attempts: int | None = None,
    ) -> None:
        super().__init__(message)
        self.item_id = item_id
        self.stage = stage
        self.task_name = task_name
        self.attempts = attempts


def leaf_exceptions(error: BaseException) -> list[BaseException]:
    """Return the errors inside *error* if it is a group, however deeply nested, else itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaf_exceptions(inner)]
    return [error]


def short_repr(value: object) -> str:
    """Return the repr of *value*, cut to what a message can bear; never raise."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__} whose repr() raises>"
    return text if len(text) <= 80 else f"{text[:77]}…"


def describe_error(error: BaseException) -> str:
    """
    Return the text of *error*, and never raise: a broken ``__str__`` must not hurt the run.

    An exception without a text is named by its type, so that a report never shows an empty cell.
    """
    try:
        return str(error) or type(error).__name__
    except Exception:
        return f"<{type(error).__name__} whose text cannot be read>"
