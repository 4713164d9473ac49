"""The exceptions that antflow raises; `TooManyFailuresError` is in `results`."""

from __future__ import annotations


class AntFlowError(Exception):
    """The base class of all exceptions of antflow."""


class PipelineError(AntFlowError):
    """A pipeline was used in a way that cannot work, or its run ended early."""


class StageValidationError(PipelineError, ValueError):
    """
    A definition, or an argument of a method, is not valid.

    It is raised when the definition is built or the method is called. The message names the
    argument, what is allowed, and the value that was given.
    """


class TaskFailedError(AntFlowError):
    """
    One item failed for good; the task's own exception is the ``__cause__``.

    Attributes:
        item_id: The id of the item.
        stage: The name of the stage in which it failed.
        task_name: The name of the task that raised.
        attempts: How many attempts were made: of the task, or, with per-stage retry, of the stage.
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
