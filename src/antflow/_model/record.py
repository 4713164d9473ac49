"""The record of an item inside a run: the only thing that the queues carry."""

from __future__ import annotations

from typing import Any

from .items import DEFAULT_PRIORITY, KnownInput, RunningNumber
from .results import FailedItem, IdentifiedValue, PipelineResult, new_result

_WITH_ID = (KnownInput, dict)


class Record:
    """
    One item between its source and its outcome.

    An `Item`, a `FailedItem`, a `PipelineResult`, and a dict with an "id", bring their own id; any
    other input gets its running number. A dict with an "id" and no "value" is itself the value. The
    class of the input decides, so a proxy of a dict is a value like any other.

    Raises:
        PipelineError: The input is the result of an item that failed.

    Attributes:
        sequence_id: The position of the input in its source, from 0.
        id: The id that came with the input, or `sequence_id`.
        input: The value as it came from the source.
        value: What the next task is given; it changes with each stage.
    """

    # What rarely changes is a class attribute, so that a record is made quickly.

    # Of the present stage: the number of the attempt, and its retries once it failed there.
    attempt = 1
    retries: Any = None
    # Lower goes first, once priorities are in use.
    priority: float = DEFAULT_PRIORITY
    # What holds the slot of this record in a `SlotQueue`, if that is not the record itself.
    slot: Any = None
    # None stands for an empty dict. Never handed out: users get copies.
    metadata: dict[str, Any] | None = None
    # Whether the input brought neither an id nor metadata.
    has_default_id = True

    def __init__(self, sequence_id: int, item: Any) -> None:
        self.sequence_id = sequence_id
        self.id = sequence_id
        self.input = item
        self.value = item
        # isinstance() would ask the item for its __class__, and some raise when they are asked.
        if issubclass(type(item), _WITH_ID):
            self._unwrap(item)

    def _unwrap(self, item: Any) -> None:
        if issubclass(type(item), KnownInput):
            item = item._as_item()
            if item.id is not RunningNumber.UNSET:
                self.id = item.id
            self.input = self.value = item.value
            if item.metadata:
                self.metadata = dict(item.metadata)
        elif "id" in item and "value" in item:
            # pop() and no comparison of keys, which may be objects that refuse to be compared.
            metadata = dict(item)
            self.id = metadata.pop("id")
            self.input = self.value = metadata.pop("value")
            if metadata:
                self.metadata = metadata
        elif "id" in item:
            self.id = item["id"]
        self.has_default_id = self.id is self.sequence_id and self.metadata is None

    def identified(self) -> IdentifiedValue:
        """Return the value with a copy of id and metadata, as the results of a run keep it."""
        metadata = None if self.metadata is None else self.metadata.copy()
        return IdentifiedValue(self.id, self.value, metadata)

    def result(self, failure: FailedItem | None = None) -> PipelineResult:
        """Return the outcome of the item; *failure* if it failed."""
        outcome = self.value if self.has_default_id else self.identified()
        return new_result(self.sequence_id, outcome, failure)

    def payload(self) -> dict[str, Any]:
        """Return what callbacks are given: a new dict of id, value and metadata."""
        return {"id": self.id, "value": self.value, "metadata": dict(self.metadata or {})}
