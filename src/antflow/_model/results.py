"""Results, failures, and the list of results with its failures."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from attrs import field, frozen

from .describe import short_repr
from .errors import PipelineError, TaskFailedError
from .fast_frozen import mutable_twin, with_lazy_metadata
from .items import no_metadata

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


@with_lazy_metadata
@frozen
class PipelineResult:
    """
    The outcome of one input.

    Attributes:
        id: The id that came with the input, or its running number.
        value: What the last task returned; if the item failed, what the failing stage was given.
        sequence_id: The running number of the input in the run, from 0.
        metadata: What came with the input in addition to id and value.
        error: The exception if the item failed, else None.
    """

    id: Any
    value: Any
    sequence_id: int
    metadata: dict[str, Any] = field(factory=no_metadata)
    error: BaseException | None = None

    @property
    def is_success(self) -> bool:
        """Whether the item passed all stages."""
        return self.error is None


class IdentifiedValue:
    """The value of an item together with its own id or metadata."""

    __slots__ = ("id", "metadata", "value")

    def __init__(self, id: Any, value: Any, metadata: dict[str, Any] | None) -> None:
        self.id = id
        self.value = value
        self.metadata = metadata


_MutableResult = mutable_twin(PipelineResult)


def new_result(sequence_id: int, outcome: Any, error: BaseException | None) -> PipelineResult:
    """
    Return a `PipelineResult`, in a fraction of the time that its constructor takes.

    Args:
        sequence_id: The running number of the input in the run.
        outcome: The bare value, or an `IdentifiedValue`.
        error: The exception if the item failed.
    """
    result = _MutableResult()
    result.sequence_id = sequence_id
    result.error = error
    if type(outcome) is IdentifiedValue:
        result.id = outcome.id
        result.value = outcome.value
        result.metadata = outcome.metadata
    else:
        result.id = sequence_id
        result.value = outcome
        result.metadata = None
    result.__class__ = PipelineResult
    return result  # type: ignore[no-any-return]


@frozen
class FailedItem:
    """
    An item that failed for good, with everything needed to examine it or to feed it again.

    Attributes:
        item_id: The id of the item.
        error: The text of the exception.
        error_type: The name of the exception's class.
        stage: The stage in which it failed.
        attempts: How many attempts were made of the failing task (per-task retry) or stage
            (per-stage retry).
        timestamp: When it failed, in Unix seconds.
        value: The value as it came from the source: feed this to start again at the first stage.
        stage_value: What the failing stage was given: feed this to continue at that stage.
        exception: The exception itself, with its traceback.
        task_name: The name of the task that raised, or ``"skip_if"``.
        metadata: What came with the input in addition to id and value.
        sequence_id: The running number of the input in the run, from 0.
    """

    item_id: Any
    error: str
    error_type: str
    stage: str
    attempts: int
    timestamp: float
    value: Any = None
    stage_value: Any = None
    exception: BaseException | None = None
    task_name: str | None = None
    metadata: dict[str, Any] = field(factory=no_metadata)
    sequence_id: int | None = None

    def as_exception(self) -> TaskFailedError:
        """Return a `TaskFailedError` that names item, stage and task, with `exception` as cause."""
        attempts = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        error = TaskFailedError(
            f"item {short_repr(self.item_id)} failed in stage {self.stage!r}, "
            f"task {self.task_name!r}, after {attempts}: {self.error_type}: {self.error}",
            self.item_id,
            self.stage,
            self.task_name,
            self.attempts,
        )
        error.__cause__ = self.exception
        return error


class Results(list[PipelineResult]):
    """
    A list of the successful results of a run in input order, with the failures as an attribute.

    Attributes:
        failures: A `FailedItem` for each input that failed, in the order in which they failed.
    """

    failures: list[FailedItem]

    def __init__(
        self, results: Iterable[PipelineResult] = (), failures: Iterable[FailedItem] = ()
    ) -> None:
        super().__init__(results)
        self.failures = list(failures)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"<Results: {len(self)} succeeded{failed}: {super().__repr__()}>"

    @property
    def values(self) -> list[Any]:
        """The bare values, in input order."""
        return [result.value for result in self]

    def raise_for_failures(self) -> None:
        """
        Raise if any item failed.

        Raises:
            ExceptionGroup: It contains one `TaskFailedError` for each failure, with the exception
                of the task as cause.
        """
        if self.failures:
            count = len(self.failures)
            raise ExceptionGroup(
                f"{count} item{'' if count == 1 else 's'} failed",
                [failure.as_exception() for failure in self.failures],
            )


class TooManyFailuresError(PipelineError):
    """
    More items failed than ``max_failures`` allows, and the run was stopped.

    Attributes:
        results: The results and ``failures`` up to the stop.
        max_failures: How many failures were allowed.
    """

    def __init__(
        self, message: str, results: Results | None = None, max_failures: int | None = None
    ) -> None:
        super().__init__(message)
        self.results = results
        self.max_failures = max_failures
