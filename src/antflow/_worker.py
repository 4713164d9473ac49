"""The state of one worker: what it is doing and what it has done."""

from __future__ import annotations

from time import perf_counter, time

from attrs import define, field

from ._errors import show
from ._items import Record
from ._stats import WorkerMetrics, WorkerState


@define(eq=False)
class Worker:
    """
    A place in the pool of a stage; it outlives the task that fills it.

    Invariant: `record` is not None exactly while an item is in progress here.
    All times are readings of `perf_counter`.
    """

    name: str
    stage: str
    number: int
    record: Record | None = field(default=None, init=False)
    task_name: str | None = field(default=None, init=False)
    began: float = field(default=0.0, init=False)
    # Set while an attempt runs whose start was published.
    attempt_began: float | None = field(default=None, init=False)
    ended: float | None = field(default=None, init=False)
    seconds: float = field(default=0.0, init=False)
    processed: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)

    def let_go(self) -> None:
        """Be done with the record, for whatever reason."""
        self.ended = now = perf_counter()
        self.seconds += now - self.began
        self.record = self.task_name = self.attempt_began = None

    def whereabouts(self) -> str:
        """Say, for a message, where an item is that does not come on."""
        if self.record is None:
            # What came of it is in the books, and is being told.
            return f"a callback of worker {self.name!r}"
        return f"item {show(self.record.id)} in task {self.task_name!r} of stage {self.stage!r}"

    def state(self) -> WorkerState:
        """Return a copy of what this worker is doing."""
        if self.record is None:
            return WorkerState(self.name, self.stage)
        return WorkerState(
            self.name, self.stage, "busy", self.record.id, self.task_name, _unix(self.began)
        )

    def metrics(self) -> WorkerMetrics:
        """Return a copy of what this worker has done."""
        return WorkerMetrics(
            self.name,
            self.stage,
            self.processed,
            self.failed,
            self.seconds,
            None if self.ended is None else _unix(self.ended),
        )


def _unix(reading: float) -> float:
    """Turn a reading of `perf_counter` into Unix time."""
    return time() - (perf_counter() - reading)
