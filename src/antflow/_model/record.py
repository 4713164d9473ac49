"""The record of an item inside a run; queues and workers carry records."""

from __future__ import annotations

from typing import Any

from .items import DEFAULT_PRIORITY, KnownInput, RunningNumber
from .results import FailedItem, IdentifiedValue, PipelineResult, new_result

_WITH_ID = (KnownInput, dict)


class Record:
    """
    One item between its source and its outcome.

    An `Item` with an id, a `FailedItem`, a `PipelineResult`, and a dict with an "id", keep that id;
    any other input gets its running number. A dict with an "id" and no "value" is itself the value.
    Only the class of the input counts, so a proxy of a dict is an ordinary value.

    Raises:
        PipelineError: The input is the result of an item that failed.

    Attributes:
        sequence_id: The running number of the input in the run, from 0.
        id: The id that came with the input, or `sequence_id`.
        input: The value as it came from the source.
        value: What the current stage was given; replaced when the item leaves the stage.
    """

    # What rarely changes is a class attribute, so that a record is made quickly.

    # At the current stage: the number of the attempt, and the `Retries` once an attempt failed.
    attempt = 1
    retries: Any = None
    # Lower ones start first, once priorities are in use.
    priority: float = DEFAULT_PRIORITY
    # The object that holds the slot of this record in a `SlotQueue`, if it is not the record.
    slot: Any = None
    # The slot in which a tracker keeps the item.
    entry: int | None = None
    # None stands for an empty dict. Users get copies and never this dict.
    metadata: dict[str, Any] | None = None
    # Whether the input had neither an id nor metadata of its own.
    has_default_id = True

    def __init__(self, sequence_id: int, item: Any) -> None:
        self.sequence_id = sequence_id
        self.id = sequence_id
        self.input = item
        self.value = item
        # isinstance() would read `__class__` of the item, which may raise.
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
            # pop(), because comparing the keys in a loop could raise: they may be any objects.
            metadata = dict(item)
            self.id = metadata.pop("id")
            self.input = self.value = metadata.pop("value")
            if metadata:
                self.metadata = metadata
        elif "id" in item:
            self.id = item["id"]
        self.has_default_id = self.id is self.sequence_id and self.metadata is None

    def identified(self) -> IdentifiedValue:
        """Return the value with the id and a copy of the metadata, as `ResultStore` keeps it."""
        metadata = None if self.metadata is None else self.metadata.copy()
        return IdentifiedValue(self.id, self.value, metadata)

    def result(self, failure: FailedItem | None = None) -> PipelineResult:
        """Return the outcome of the item; *failure* is given if it failed."""
        outcome = self.value if self.has_default_id else self.identified()
        return new_result(self.sequence_id, outcome, failure)

    def payload(self) -> dict[str, Any]:
        """Return the payload of callbacks: a new dict of id, value and metadata."""
        return {"id": self.id, "value": self.value, "metadata": dict(self.metadata or {})}
