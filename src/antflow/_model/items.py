"""What goes in and what comes out: input items, results, failures."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable
from typing import Any

from attrs import field, frozen, validators

from .errors import TaskFailedError, short_repr
from .fast_frozen import mutable_twin, with_lazy_metadata

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

DEFAULT_PRIORITY = 100


def _no_metadata() -> dict[str, Any]:
    return {}


class RunningNumber(enum.Enum):
    """The id of an `Item` that brings none: any object may be an id, None too."""

    UNSET = "the running number"


@frozen
class Item:
    """
    An input with an id and metadata of its own.

    It says the same as the dict ``{"id": …, "value": …, **metadata}``, without anything being
    guessed from the shape of the value.

    Args:
        value: What the first task is given.
        id: Any object; by default the running number of the item.
        metadata: A dict, kept beside the value, and found again in the result and in callbacks.

    Raises:
        TypeError: *metadata* is no dict.
    """

    value: Any
    id: Any = field(default=RunningNumber.UNSET, kw_only=True)
    metadata: dict[str, Any] = field(
        factory=_no_metadata, kw_only=True, validator=validators.instance_of(dict)
    )


@with_lazy_metadata
@frozen
class PipelineResult:
    """
    What became of one input.

    Attributes:
        id: The id that came with the input, or its running number.
        value: What the last task returned; if the item failed, what the failing stage was given.
        sequence_id: The place of the input in the source, from 0.
        metadata: What came with the input beside id and value.
        error: The exception if the item failed, else None.
    """

    id: Any
    value: Any
    sequence_id: int
    metadata: dict[str, Any] = field(factory=_no_metadata)
    error: BaseException | None = None

    @property
    def is_success(self) -> bool:
        """Whether the item went through all stages."""
        return self.error is None


_NewResult = mutable_twin(PipelineResult)


def new_result(sequence_id: int, kept: Any, error: BaseException | None) -> PipelineResult:
    """
    Return a `PipelineResult`, in a fraction of the time.

    Args:
        sequence_id: The number of the item.
        kept: Its bare value, or a `Kept`.
        error: Why it failed, if it did.
    """
    result = _NewResult()
    result.sequence_id = sequence_id
    result.error = error
    if type(kept) is IdentifiedValue:
        result.id = kept.id
        result.value = kept.value
        result.metadata = kept.metadata
    else:
        result.id = sequence_id
        result.value = kept
        result.metadata = None
    result.__class__ = PipelineResult
    return result  # type: ignore[no-any-return]


@frozen
class FailedItem:
    """
    An item that failed for good, with all that is needed to look into it or to feed it again.

    Attributes:
        item_id: The id of the item.
        error: The text of the exception.
        error_type: The name of the exception's class.
        stage: The stage in which it failed.
        attempts: How often the failing task (per-task retry) or stage (per-stage retry) was tried.
        timestamp: When it failed, in Unix seconds.
        value: The input as it came from the source: feed this to run the item again from the start.
        stage_value: What the failing stage was given: feed this to go on at that stage.
        exception: The exception itself, with its traceback.
        task_name: The task that raised.
        metadata: What came with the input beside id and value.
        sequence_id: The place of the input in the source, from 0.
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
    metadata: dict[str, Any] = field(factory=_no_metadata)
    sequence_id: int | None = None

    def as_exception(self) -> TaskFailedError:
        """Return a `TaskFailedError` that tells item, stage and task, caused by the exception."""
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        error = TaskFailedError(
            f"item {short_repr(self.item_id)} failed in stage {self.stage!r}, task {self.task_name!r}, "
            f"after {tries}: {self.error_type}: {self.error}",
            self.item_id,
            self.stage,
            self.task_name,
            self.attempts,
        )
        error.__cause__ = self.exception
        return error


class Results(list[PipelineResult]):
    """
    The successful results of a run in input order: a list with the failures beside it.

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
            ExceptionGroup: One `TaskFailedError` for each failure, each caused by the task's own
                exception.
        """
        if self.failures:
            count = len(self.failures)
            raise ExceptionGroup(
                f"{count} item{'' if count == 1 else 's'} failed",
                [failure.as_exception() for failure in self.failures],
            )


# What may bring an id.
_WITH_ID = (Item, dict)


class Record:
    """
    One item on its way through the stages: the only thing that the streams carry.

    An `Item`, and a dict with an "id", bring their own id; anything else gets its running number.
    A dict with an "id" and no "value" is itself the value. What an item is, its class says, and not
    the item itself: a proxy of a dict is a value like others.

    `value` changes with each stage. What hardly ever changes stands in the class, so that a record
    is made in little time.
    """

    # Of the stage that the item is in: which attempt at it this is, and its retries, once it
    # failed there (see _retry).
    attempt = 1
    retries: Any = None
    # Lower goes first, where several wait for a stage and priorities are in use.
    priority: float = DEFAULT_PRIORITY
    # Under what its place is held, if that is not the record itself (see _entrance and _line).
    place: Any = None
    # Nobody outside is given this dict itself. None stands for an empty one.
    metadata: dict[str, Any] | None = None
    # Whether it brought neither an id nor metadata.
    has_default_id = True

    def __init__(self, sequence_id: int, item: Any) -> None:
        self.sequence_id = sequence_id
        self.id = sequence_id
        self.input = item
        self.value = item
        # The class, and not the item, which is asked nothing: some answer that with an error.
        if issubclass(type(item), _WITH_ID):
            self._unwrap(item)

    def _unwrap(self, item: Any) -> None:
        if issubclass(type(item), Item):
            if item.id is not RunningNumber.UNSET:
                self.id = item.id
            self.input = self.value = item.value
            if item.metadata:
                self.metadata = dict(item.metadata)
        elif "id" in item and "value" in item:
            # Not by comparing the keys, which may be objects that refuse it.
            metadata = dict(item)
            self.id = metadata.pop("id")
            self.input = self.value = metadata.pop("value")
            if metadata:
                self.metadata = metadata
        elif "id" in item:
            self.id = item["id"]
        self.has_default_id = self.id is self.sequence_id and self.metadata is None

    def result(self, error: BaseException | None = None) -> PipelineResult:
        """Return what became of the item, with *error* if it failed."""
        return new_result(
            self.sequence_id, self.value if self.has_default_id else IdentifiedValue(self), error
        )

    def payload(self) -> dict[str, Any]:
        """Return what callbacks are given: a new dict of id, value and metadata."""
        return {"id": self.id, "value": self.value, "metadata": dict(self.metadata or {})}


class IdentifiedValue:
    """An item that came out, and had brought an id or metadata."""

    __slots__ = ("id", "metadata", "value")

    def __init__(self, record: Record) -> None:
        self.id = record.id
        self.metadata = None if record.metadata is None else record.metadata.copy()
        self.value = record.value
