"""The state of one worker: what it is doing and what it has done."""

from __future__ import annotations

from time import perf_counter, time

from attrs import define, field

from .._model.errors import short_repr
from .._model.items import Record
from .._model.snapshots import WorkerMetrics, WorkerState


@define(eq=False)
class Worker:
    """
    A place in the pool of a stage; it outlives the task that fills it.

    On the straight way the clock is read once per item: when one is done with, the next may have
    begun. All times are readings of `perf_counter`.

    Invariant: `record` is not None exactly while an item is in progress here.
    """

    name: str
    stage: str
    number: int
    # The task that the record is at, or comes to first.
    task_name: str
    record: Record | None = field(default=None, init=False)
    # When this worker took its record; if it has none, when it was done with the last.
    since: float = field(default=0.0, init=False)
    # How much of that it has not spent on records.
    idle_time: float = field(default=0.0, init=False)
    # Set while an attempt runs whose start was published.
    attempt_began: float | None = field(default=None, init=False)
    processed: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)

    def rest(self) -> None:
        """Have waited: the time from the last record until now is not spent on the next."""
        now = perf_counter()
        self.idle_time += now - self.since
        self.since = now

    def describe_position(self) -> str:
        """Say, for a message, where an item is that does not come on."""
        if self.record is None:
            # What came of it is in the books, and is being told.
            return f"a callback of worker {self.name!r}"
        return (
            f"item {short_repr(self.record.id)} in task {self.task_name!r} of stage {self.stage!r}"
        )

    def state(self) -> WorkerState:
        """Return a copy of what this worker is doing."""
        record = self.record
        if record is None:
            return WorkerState(self.name, self.stage)
        return WorkerState(
            self.name, self.stage, "busy", record.id, self.task_name, _unix(self.since)
        )

    def metrics(self) -> WorkerMetrics:
        """Return a copy of what this worker has done."""
        return WorkerMetrics(
            self.name,
            self.stage,
            self.processed,
            self.failed,
            self.since - self.idle_time,
            _unix(self.since) if self.processed or self.failed else None,
        )


def _unix(reading: float) -> float:
    """Turn a reading of `perf_counter` into Unix time."""
    return time() - (perf_counter() - reading)
