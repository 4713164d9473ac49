"""What can be asked of a run: its results so far, and figures, all of them copies."""

from __future__ import annotations

from .._model.items import FailedItem, Results
from .._model.snapshots import (
    DashboardSnapshot,
    ErrorSummary,
    PipelineStats,
    WorkerMetrics,
    WorkerState,
)
from .run_state import RunState


class Inspection:
    """
    Answers questions about a run from its books.

    All answers are copies that no run will change, and those that were got without an await in
    between fit together.
    """

    __slots__ = ()

    _state: RunState

    @property
    def results(self) -> Results:
        """The results so far, in input order."""
        return self._state.results()

    @property
    def failures(self) -> list[FailedItem]:
        """The failures so far, in the order in which they happened."""
        return list(self._state.failures)

    def get_stats(self) -> PipelineStats:
        """Return where the items are."""
        return self._state.pipeline_stats()

    def get_worker_names(self) -> dict[str, list[str]]:
        """Return the names of all workers, by stage name."""
        return self._state.worker_names()

    def get_worker_states(self) -> dict[str, WorkerState]:
        """Return what each worker is doing, by worker name."""
        return self._state.worker_states()

    def get_worker_metrics(self) -> dict[str, WorkerMetrics]:
        """Return what each worker did, by worker name."""
        return self._state.worker_metrics()

    def get_error_summary(self) -> ErrorSummary:
        """Return the failures, counted."""
        return self._state.error_summary()

    def get_dashboard_snapshot(self) -> DashboardSnapshot:
        """Return all of these figures, taken at one instant."""
        return self._state.snapshot()
