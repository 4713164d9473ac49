"""The results and statistics of a run, as copies."""

from __future__ import annotations

from time import time

from .._model.results import FailedItem, Results
from .._model.snapshots import (
    DashboardSnapshot,
    ErrorSummary,
    PipelineStats,
    StageStats,
    WorkerMapping,
    WorkerMetrics,
    WorkerState,
)
from .lifecycle import Phase
from .run_state import RunState


class Inspection:
    """
    Properties and methods that return the state of a run.

    They return copies, which the run does not change. Copies that were taken without an await in
    between are consistent with one another.
    """

    __slots__ = ()

    _state: RunState

    @property
    def results(self) -> Results:
        """The results so far, in input order."""
        return self._state.results.results()

    @property
    def failures(self) -> list[FailedItem]:
        """The failures so far, in the order in which they occurred."""
        return list(self._state.results.failures)

    def get_stats(self) -> PipelineStats:
        """
        Return how many items are where.

        In the thread of the event loop, the numbers are exact. In other threads they are never
        negative, but items that move meanwhile may be counted twice or be missing.
        """
        has_ended = self._state.lifecycle.phase is Phase.ENDED
        stage_stats = {}
        queue_sizes = {}
        in_flight = failures = passed = 0
        for state in self._state.stages:
            # In this order: what has arrived includes what has left, whenever each is read.
            name, passed, failed = state.stage.name, state.passed, state.failed
            in_progress = state.in_progress
            pending = 0 if has_ended else max(0, state.arrived - passed - failed - in_progress)
            skipped = min(state.skipped, passed)
            stage_stats[name] = StageStats(
                name, pending, in_progress, passed - skipped, failed, skipped
            )
            # The remaining pending items wait for room, or for their next attempt.
            queue_sizes[name] = int(min(pending, state.stage.capacity))
            in_flight += pending + in_progress
            failures += failed
        return PipelineStats(passed, failures, in_flight, queue_sizes, stage_stats)

    def get_worker_names(self) -> dict[str, list[str]]:
        """Return the names of all workers, by stage name."""
        return {state.stage.name: state.worker_names() for state in self._state.stages}

    def get_worker_states(self) -> WorkerMapping[WorkerState]:
        """Return what each worker is doing, by worker name."""
        started = {
            worker.name: worker.state() for state in self._state.stages for worker in state.workers
        }
        return WorkerMapping(started, self._worker_counts(), WorkerState)

    def get_worker_metrics(self) -> WorkerMapping[WorkerMetrics]:
        """Return what each worker has done, by worker name."""
        started = {
            worker.name: worker.metrics()
            for state in self._state.stages
            for worker in state.workers
        }
        return WorkerMapping(started, self._worker_counts(), WorkerMetrics)

    def _worker_counts(self) -> dict[str, int]:
        return {state.stage.name: state.stage.workers for state in self._state.stages}

    def get_error_summary(self) -> ErrorSummary:
        """Return counts of the failures."""
        return self._state.results.error_summary()

    def get_dashboard_snapshot(self) -> DashboardSnapshot:
        """Return all of these statistics, taken at the same time."""
        return DashboardSnapshot(
            self.get_worker_states(),
            self.get_worker_metrics(),
            self.get_stats(),
            self.get_error_summary(),
            time(),
        )
