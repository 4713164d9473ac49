"""Snapshots: what a pipeline tells about itself, as copies that no run will change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from attrs import frozen

from .items import FailedItem


@frozen
class WorkerState:
    """
    What one worker is doing.

    Attributes:
        worker_name: ``"<stage>-W<n>"``.
        stage: The name of its stage.
        status: ``busy`` while it has an item in progress, else ``idle``.
        current_item_id: The id of that item.
        current_task: The name of the task that it is at, or comes to first.
        processing_since: When it took the item, in Unix seconds.
    """

    worker_name: str
    stage: str
    status: Literal["busy", "idle"] = "idle"
    current_item_id: Any = None
    current_task: str | None = None
    processing_since: float | None = None


@frozen
class WorkerMetrics:
    """
    What one worker has done.

    Attributes:
        worker_name: ``"<stage>-W<n>"``.
        stage: The name of its stage.
        items_processed: Items that it finished with success, skipped ones included.
        items_failed: Items that failed for good in its hands.
        total_processing_time: Seconds in which it had an item in progress, back-off included.
        last_active: When it last took an item or was done with one, in Unix seconds; None if none
            is done yet.
    """

    worker_name: str
    stage: str
    items_processed: int = 0
    items_failed: int = 0
    total_processing_time: float = 0.0
    last_active: float | None = None

    @property
    def avg_processing_time(self) -> float:
        """Seconds per finished item; 0.0 before the first."""
        finished = self.items_processed + self.items_failed
        return self.total_processing_time / finished if finished else 0.0


@frozen
class StageStats:
    """
    Where the items of one stage are. Each item that reached the stage is in one of the figures.

    Attributes:
        stage_name: The name of the stage.
        pending_items: Reached the stage and are not in progress: queued, still in the hands of a
            sender who waits for room, or waiting for their next attempt.
        in_progress_items: Are with a worker.
        completed_items: Left the stage with success.
        failed_items: Failed here for good.
        skipped_items: Passed by, because ``skip_if`` said so.
    """

    stage_name: str
    pending_items: int = 0
    in_progress_items: int = 0
    completed_items: int = 0
    failed_items: int = 0
    skipped_items: int = 0


@frozen
class PipelineStats:
    """
    Where the items of the newest run are.

    Attributes:
        items_processed: Left the last stage.
        items_failed: Failed for good, in any stage.
        items_in_flight: Read from the source and neither of the two.
        queue_sizes: By stage name, how many items wait in its queue or for their next attempt:
            what is pending, without those that are still in the hands of a sender.
        stage_stats: By stage name, the figures of the stage.
    """

    items_processed: int
    items_failed: int
    items_in_flight: int
    queue_sizes: dict[str, int]
    stage_stats: dict[str, StageStats]


@frozen
class ErrorSummary:
    """
    The failures, counted.

    Attributes:
        total_failed: How many items failed for good.
        errors_by_type: By the name of the exception's class, most frequent first.
        errors_by_stage: By the name of the stage, most frequent first.
        failed_items: One `FailedItem` each, in the order in which they failed.
    """

    total_failed: int
    errors_by_type: dict[str, int]
    errors_by_stage: dict[str, int]
    failed_items: list[FailedItem]

    @classmethod
    def of(cls, failures: Iterable[FailedItem]) -> ErrorSummary:
        """Count *failures*."""
        failed = list(failures)
        return cls(
            total_failed=len(failed),
            errors_by_type=dict(Counter(item.error_type for item in failed).most_common()),
            errors_by_stage=dict(Counter(item.stage for item in failed).most_common()),
            failed_items=failed,
        )


@frozen
class DashboardSnapshot:
    """
    All that a dashboard shows, taken at one instant.

    Attributes:
        worker_states: By worker name; workers that were not yet needed are idle.
        worker_metrics: By worker name.
        pipeline_stats: Where the items are.
        error_summary: The failures, counted.
        timestamp: Unix seconds.
    """

    worker_states: dict[str, WorkerState]
    worker_metrics: dict[str, WorkerMetrics]
    pipeline_stats: PipelineStats
    error_summary: ErrorSummary
    timestamp: float
