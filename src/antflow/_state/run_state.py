"""What a run knows: where its items are, what came out, and copies of that for observers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import RLock
from time import time
from typing import Any

from attrs import define, field, setters

from .._definition.callables import task_name
from .._definition.stage import Stage
from .._model.events import worker_name
from .._model.items import FailedItem, IdentifiedValue, PipelineResult, Record, Results, new_result
from .._model.snapshots import (
    DashboardSnapshot,
    ErrorSummary,
    PipelineStats,
    StageStats,
    WorkerMetrics,
    WorkerState,
)
from .worker import Worker


@define(eq=False)
class StageState:
    """
    The workers of one stage, as far as they were ever needed: number n is at index n.

    Their counters are the only ones; every figure of the stage is a sum over them.
    """

    stage: Stage
    first_task: str = field(init=False)
    workers: list[Worker] = field(factory=list, init=False)
    skipped: int = field(default=0, init=False)
    # How many items came straight from a source, where this is not the first stage.
    injected: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.first_task = task_name(self.stage.tasks[0])

    @property
    def passed(self) -> int:
        """How many items left the stage with success, those skipped included."""
        return sum(worker.processed for worker in self.workers)

    @property
    def failed(self) -> int:
        """How many items failed in the stage for good."""
        return sum(worker.failed for worker in self.workers)

    @property
    def in_progress(self) -> int:
        """How many items are with a worker."""
        return sum(worker.record is not None for worker in self.workers)

    def add_worker(self) -> Worker:
        """Return the worker with the next number."""
        number = len(self.workers)
        stage_name = self.stage.name
        worker = Worker(worker_name(stage_name, number), stage_name, number, self.first_task)
        self.workers.append(worker)
        return worker

    def worker_names(self) -> list[str]:
        """Return the names of all workers that the stage may have."""
        return [worker_name(self.stage.name, number) for number in range(self.stage.workers)]


# Held while somebody keeps the results that he has made.
_results_lock = RLock()
# The place of an item that is under way or failed.
_NOTHING = object()


def _nobody() -> None:
    """Be called for nothing."""


def _stage_states(stages: tuple[Stage, ...]) -> tuple[StageState, ...]:
    return tuple(StageState(stage) for stage in stages)


@define(eq=False, on_setattr=setters.NO_OP)
class RunState:
    """
    The books of one run; also those of a pipeline that never ran.

    Invariant: what was admitted is pending or in progress at exactly one stage, or failed, or
    left the last stage. Each change from one to the other is made without an await in between, so
    that whoever looks, from a callback or another task, sees figures that fit together.
    """

    stages: tuple[StageState, ...] = field(converter=_stage_states)
    collect_results: bool = True
    max_failures: int | None = None
    # A stream hands its failures over, and must not keep them for as long as it lives.
    keep_failures: bool = True
    admitted: int = field(default=0, init=False)
    # Of those, how many are done with: their outcome is kept or handed over, everybody was told.
    settled: int = field(default=0, init=False)
    # Called whenever these two meet.
    on_idle: Callable[[], None] = field(default=_nobody, init=False)
    failures: list[FailedItem] = field(factory=list, init=False)
    _errors_by_type: Counter[str] = field(factory=Counter, init=False)
    _errors_by_stage: Counter[str] = field(factory=Counter, init=False)
    # What came out, by sequence number: the bare value, or a `Kept` for an item that brought an id
    # or metadata. Results are made when somebody looks: until then each would be one object more
    # that the garbage collector goes through.
    _kept: list[Any] = field(factory=list, init=False)
    # Those that were made.
    _results: list[PipelineResult | None] = field(factory=list, init=False)
    # Whatever was still under way when the run ended is not, any more.
    over: bool = field(default=False, init=False)
    # More items failed than may fail.
    too_many: bool = field(default=False, init=False)
    # That, or the run is cancelled: no worker takes another item.
    stopped: bool = field(default=False, init=False)

    def admit(self, item: Any) -> Record:
        """Take an item from a source into the books."""
        record = Record(self.admitted, item)
        self.admitted += 1
        if self.collect_results:
            self._kept.append(_NOTHING)
        return record

    def deliver(self, record: Record) -> None:
        """Keep what came out of the last stage."""
        if self.collect_results:
            self._kept[record.sequence_id] = (
                record.value if record.has_default_id else IdentifiedValue(record)
            )

    def fail(self, failed: FailedItem) -> None:
        """Keep what failed for good."""
        self._errors_by_type[failed.error_type] += 1
        self._errors_by_stage[failed.stage] += 1
        if self.keep_failures:
            self.failures.append(failed)
        if self.max_failures is not None and len(self.failures) > self.max_failures:
            self.too_many = self.stopped = True

    def stop(self) -> None:
        """
        Let no worker take another item, since the run is being cancelled.

        Else one whose task swallows the cancellation and returns would begin another.
        """
        self.stopped = True

    def settle(self) -> None:
        """Be done with an item."""
        self.settled = settled = self.settled + 1
        if settled == self.admitted:
            self.on_idle()

    @property
    def unfinished(self) -> int:
        """How many items were admitted and are not done with."""
        return self.admitted - self.settled

    def results(self) -> Results:
        """Return what came out so far, in input order."""
        kept, known = self._kept, self._results
        # Lists of their own: another thread may look while the run goes on.
        results = known + [
            None if outcome is _NOTHING else new_result(number, outcome, None)
            for number, outcome in enumerate(kept[len(known) :], len(known))
        ]
        for number, made in enumerate(known):
            if made is None and kept[number] is not _NOTHING:
                results[number] = new_result(number, kept[number], None)
        with _results_lock:
            if self._results is known:
                self._results = results
                return Results(filter(None, results), self.failures)
        # Another thread was faster, or a handler of signals, and its results are the ones.
        return self.results()

    def end(self) -> None:
        """Close the books: nothing is under way any more."""
        self.over = True
        self.on_idle = _nobody
        for state in self.stages:
            for worker in state.workers:
                worker.record = None

    def pipeline_stats(self) -> PipelineStats:
        """Return where the items are."""
        reached = self.admitted - sum(state.injected for state in self.stages)
        stage_stats = {}
        queue_sizes = {}
        in_flight = failures = 0
        for state in self.stages:
            reached += state.injected
            name, passed, failed = state.stage.name, state.passed, state.failed
            in_progress = state.in_progress
            pending = 0 if self.over else reached - passed - failed - in_progress
            stage_stats[name] = StageStats(
                name, pending, in_progress, passed - state.skipped, failed, state.skipped
            )
            # The rest is in the hands of senders that wait for room.
            queue_sizes[name] = int(min(pending, state.stage.capacity))
            in_flight += pending + in_progress
            failures += failed
            reached = passed
        return PipelineStats(reached, failures, in_flight, queue_sizes, stage_stats)

    def worker_names(self) -> dict[str, list[str]]:
        """Return the names of all workers by stage name."""
        return {state.stage.name: state.worker_names() for state in self.stages}

    def worker_states(self) -> dict[str, WorkerState]:
        """Return what each worker is doing, by worker name."""
        states = {
            name: WorkerState(name, state.stage.name)
            for state in self.stages
            for name in state.worker_names()
        }
        for state in self.stages:
            states.update((worker.name, worker.state()) for worker in state.workers)
        return states

    def worker_metrics(self) -> dict[str, WorkerMetrics]:
        """Return what each worker has done, by worker name."""
        metrics = {
            name: WorkerMetrics(name, state.stage.name)
            for state in self.stages
            for name in state.worker_names()
        }
        for state in self.stages:
            metrics.update((worker.name, worker.metrics()) for worker in state.workers)
        return metrics

    def error_summary(self) -> ErrorSummary:
        """Return the failures, counted."""
        return ErrorSummary(
            sum(self._errors_by_type.values()),
            dict(self._errors_by_type.most_common()),
            dict(self._errors_by_stage.most_common()),
            list(self.failures),
        )

    def snapshot(self) -> DashboardSnapshot:
        """Return all of it, taken at one instant."""
        return DashboardSnapshot(
            self.worker_states(),
            self.worker_metrics(),
            self.pipeline_stats(),
            self.error_summary(),
            time(),
        )
