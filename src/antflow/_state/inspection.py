"""The results and statistics of a run, as copies."""

from __future__ import annotations

from time import time

from .._model.results import FailedItem, Results
from .._model.snapshots import (
    DashboardSnapshot,
    ErrorSummary,
    PipelineStats,
    StageStats,
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
        """Return how many items are where."""
        has_ended = self._state.lifecycle.phase is Phase.ENDED
        stage_stats = {}
        queue_sizes = {}
        in_flight = failures = passed = 0
        for state in self._state.stages:
            name, passed, failed = state.stage.name, state.passed, state.failed
            in_progress = state.in_progress
            pending = 0 if has_ended else state.arrived - passed - failed - in_progress
            stage_stats[name] = StageStats(
                name, pending, in_progress, passed - state.skipped, failed, state.skipped
            )
            # The remaining pending items wait for room, or for their next attempt.
            queue_sizes[name] = int(min(pending, state.stage.capacity))
            in_flight += pending + in_progress
            failures += failed
        return PipelineStats(passed, failures, in_flight, queue_sizes, stage_stats)

    def get_worker_names(self) -> dict[str, list[str]]:
        """Return the names of all workers, by stage name."""
        return {state.stage.name: state.worker_names() for state in self._state.stages}

    def get_worker_states(self) -> dict[str, WorkerState]:
        """Return what each worker is doing, by worker name."""
        states = {
            name: WorkerState(name, state.stage.name)
            for state in self._state.stages
            for name in state.worker_names()
        }
        for state in self._state.stages:
            states.update((worker.name, worker.state()) for worker in state.workers)
        return states

    def get_worker_metrics(self) -> dict[str, WorkerMetrics]:
        """Return what each worker has done, by worker name."""
        metrics = {
            name: WorkerMetrics(name, state.stage.name)
            for state in self._state.stages
            for name in state.worker_names()
        }
        for state in self._state.stages:
            metrics.update((worker.name, worker.metrics()) for worker in state.workers)
        return metrics

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
