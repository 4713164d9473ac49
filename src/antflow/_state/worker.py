"""The state of one worker: what it is doing and what it has done."""

from __future__ import annotations

from time import perf_counter, time

from attrs import define, field

from .._model.describe import short_repr
from .._model.record import Record
from .._model.snapshots import WorkerMetrics, WorkerState


def worker_name(stage: str, number: int) -> str:
    """Return the name of worker *number*, counted from 0, of *stage*."""
    return f"{stage}-W{number}"


@define(eq=False)
class Worker:
    """
    The state of one worker; it outlives the loop tasks that run the worker.

    On the fast path the clock is read once per item: the time at which an item is finished counts
    as the time at which the next one begins. All times are readings of `perf_counter`.

    Invariant: `record` is not None exactly while this worker has an item in progress.

    Attributes:
        name: ``"<stage>-W<n>"``.
        stage: The name of the stage.
        number: The number of the worker within its stage, from 0.
        task_name: The name of the task that runs, or will run first.
        record: The item in progress.
        since: When the worker took `record`; if it has none, when it finished the last.
        idle_time: How many seconds of the time until `since` were not spent on items.
        attempt: The number of the attempt that runs.
        attempt_began: Set during an attempt whose ``start`` event was published.
    """

    name: str
    stage: str
    number: int
    task_name: str
    attempt: int = field(default=1, init=False)
    record: Record | None = field(default=None, init=False)
    since: float = field(default=0.0, init=False)
    idle_time: float = field(default=0.0, init=False)
    attempt_began: float | None = field(default=None, init=False)
    processed: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)

    def mark_idle(self) -> None:
        """Count the time from the last item until now as idle."""
        now = perf_counter()
        self.idle_time += now - self.since
        self.since = now

    def describe_position(self) -> str:
        """Return, for a message, what the worker is working on."""
        if self.record is None:
            # The item is finished, and callbacks are running.
            return f"a callback of worker {self.name!r}"
        item_id = short_repr(self.record.id)
        return f"item {item_id} in task {self.task_name!r} of stage {self.stage!r}"

    def state(self) -> WorkerState:
        """Return a copy of what this worker is doing."""
        record = self.record
        if record is None:
            return WorkerState(self.name, self.stage)
        return WorkerState(
            self.name, self.stage, "busy", record.id, self.task_name, _unix_time(self.since)
        )

    def metrics(self) -> WorkerMetrics:
        """Return a copy of what this worker has done."""
        return WorkerMetrics(
            self.name,
            self.stage,
            self.processed,
            self.failed,
            self.since - self.idle_time,
            _unix_time(self.since) if self.processed or self.failed else None,
        )


def _unix_time(reading: float) -> float:
    """Convert a reading of `perf_counter`."""
    return time() - (perf_counter() - reading)
