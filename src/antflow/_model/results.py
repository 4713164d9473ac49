"""Results, failures, and the list of results with its failures."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from attrs import field, frozen

from .describe import first_three, short_repr
from .errors import PipelineError, TaskFailedError
from .fast_frozen import mutable_twin, with_lazy_metadata
from .items import Item, KnownInput, no_metadata
from .plain_data import PlainData, as_plain_data

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


@frozen
class FailedItem(PlainData, KnownInput):
    """
    An item that failed for good, with everything needed to examine it or to feed it again.

    A pipeline accepts it as an input, and treats it like ``as_item()``.

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

    def as_item(self, from_start: bool = True) -> Item:
        """
        Return an `Item` of the same id, with a copy of the metadata, to feed it again.

        Args:
            from_start: Whether its value is the input as it came from the source. If False, it is
                what the failing stage was given: feed it with ``target_stage=failure.stage``.
        """
        value = self.value if from_start else self.stage_value
        return Item(value, id=self.item_id, metadata=dict(self.metadata))

    def _as_item(self) -> Item:
        return self.as_item()

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


@with_lazy_metadata
@frozen
class PipelineResult(PlainData, KnownInput):
    """
    The outcome of one input.

    Fed to a pipeline, a successful result passes on its value, id and metadata. A failed one is
    refused, because its value has not passed all stages: feed its `failure` to run it again.

    Attributes:
        id: The id that came with the input, or its running number.
        value: What the last task returned; if the item failed, what the failing stage was given.
        sequence_id: The running number of the input in the run, from 0.
        metadata: What came with the input in addition to id and value.
        error: The exception if the item failed, else None.
        failure: If the item failed, the `FailedItem`: with its input, stage and task. Results are
            compared without it.
    """

    id: Any
    value: Any
    sequence_id: int
    metadata: dict[str, Any] = field(factory=no_metadata)
    error: BaseException | None = None
    failure: FailedItem | None = field(default=None, eq=False, repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the item passed all stages."""
        return self.error is None

    def value_or_raise(self) -> Any:
        """
        Return the value if the item passed all stages.

        Raises:
            BaseException: The exception with which the item failed, unchanged.
        """
        error = self.error
        if error is None:
            return self.value
        try:
            raise error
        finally:
            # Its traceback refers to this frame.
            del self, error

    def _as_item(self) -> Item:
        if self.error is None:
            return Item(self.value, id=self.id, metadata=self.metadata)
        raise PipelineError(
            f"the result of item {short_repr(self.id)}, which failed, cannot be fed: its value has "
            "not passed all stages. Feed result.failure to run the item again from its input, "
            "or feed only results for which is_success is true."
        )


class IdentifiedValue:
    """The value of an item together with its own id or metadata."""

    __slots__ = ("id", "metadata", "value")

    def __init__(self, id: Any, value: Any, metadata: dict[str, Any] | None) -> None:
        self.id = id
        self.value = value
        self.metadata = metadata


_MutableResult = mutable_twin(PipelineResult)


def new_result(sequence_id: int, outcome: Any, failure: FailedItem | None = None) -> PipelineResult:
    """
    Return a `PipelineResult`, in a fraction of the time that its constructor takes.

    Args:
        sequence_id: The running number of the input in the run.
        outcome: The bare value, or an `IdentifiedValue`.
        failure: The failure if the item failed.
    """
    result = _MutableResult()
    result.sequence_id = sequence_id
    result.failure = failure
    result.error = None if failure is None else failure.exception
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


class Results(list[PipelineResult], PlainData):
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
        return f"<Results: {len(self)} succeeded{failed}: {first_three(self)}>"

    def to_dict(self) -> dict[str, Any]:
        """
        Return a new dict with the lists ``results`` and ``failures``, ready for ``json.dumps()``.

        The values are converted as by `PipelineResult.to_dict`.
        """
        return super().to_dict()

    def _to_dict(self, enclosing: tuple[int, ...]) -> dict[str, Any]:
        return {
            "results": as_plain_data(list(self), enclosing),
            "failures": as_plain_data(self.failures, enclosing),
        }

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
