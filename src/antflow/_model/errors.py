"""The exceptions that antflow raises itself; `TooManyFailuresError` is beside the results."""

from __future__ import annotations


class AntFlowError(Exception):
    """Base class of every antflow exception."""


class PipelineError(AntFlowError):
    """A pipeline was defined or used in a way that cannot work."""


class StageValidationError(PipelineError, ValueError):
    """
    A stage, its retry policy or the list of stages is not valid.

    Raised when the definition is built, or, for an argument of ``run()``, before the run begins.
    The message names the stage, the argument, what is allowed, and the value that was given.
    """


class TaskFailedError(AntFlowError):
    """
    One item failed for good; the task's own exception is the ``__cause__``.

    Attributes:
        item_id: The id of the item.
        stage: The name of the stage in which it failed.
        task_name: The name of the task that raised.
        attempts: How many attempts were made: of the task, or of the stage if that is retried as a
            whole.
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
