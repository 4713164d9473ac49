"""Snapshots: copies of the state of a run, which the run does not change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Literal, TypeVar

from attrs import field, frozen

from .describe import first_three
from .plain_data import PlainData
from .results import FailedItem

_Copy = TypeVar("_Copy")


@frozen
class WorkerState(PlainData):
    """
    What one worker is doing.

    Attributes:
        worker_name: ``"<stage>-W<n>"``.
        stage: The name of its stage.
        status: ``busy`` while it has an item in progress, else ``idle``.
        current_item_id: The id of the item in progress.
        current_task: The name of the task that runs, or will run first.
        processing_since: When the worker took the item, in Unix seconds.
    """

    worker_name: str
    stage: str
    status: Literal["busy", "idle"] = "idle"
    current_item_id: Any = None
    current_task: str | None = None
    processing_since: float | None = None


@frozen
class WorkerMetrics(PlainData):
    """
    What one worker has done.

    Attributes:
        worker_name: ``"<stage>-W<n>"``.
        stage: The name of its stage.
        items_processed: How many items it finished with success, including skipped ones.
        items_failed: How many items failed for good at this worker.
        total_processing_time: The seconds that it spent on items, without the one in progress.
            Waits between the attempts of a task are included.
        last_active: When it last took or finished an item, in Unix seconds; None before it has
            finished one.
    """

    worker_name: str
    stage: str
    items_processed: int = 0
    items_failed: int = 0
    total_processing_time: float = 0.0
    last_active: float | None = None

    @property
    def avg_processing_time(self) -> float:
        """The seconds per finished item; 0.0 before the first."""
        finished = self.items_processed + self.items_failed
        return self.total_processing_time / finished if finished else 0.0


@frozen(eq=False, repr=False)
class WorkerMapping(Mapping[str, _Copy], Generic[_Copy]):
    """
    One copy for each worker, by the name of the worker: a mapping that cannot be changed.

    It has all workers of all stages, in order, and equals a dict with the same contents. A worker
    that was never started takes no memory: its copy is made when it is read. So a stage may have a
    million workers.

    Attributes:
        started: The workers that were ever started, by name.
    """

    started: dict[str, _Copy]
    # By the name of the stage, how many workers it may have.
    _counts: dict[str, int]
    # Makes the copy for a worker that was never started, of its name and that of its stage.
    _idle: Callable[[str, str], _Copy]

    def __getitem__(self, name: str) -> _Copy:
        try:
            return self.started[name]
        except KeyError:
            stage, _, digits = name.rpartition("-W") if isinstance(name, str) else ("", "", "")
            count = self._counts.get(stage, 0)
            # Not int() of many digits, which takes long, nor of those of other scripts.
            if not digits.isdecimal() or len(digits) > len(str(count)) or int(digits) >= count:
                raise
            if f"{stage}-W{int(digits)}" != name:
                raise
            return self._idle(name, stage)

    def __iter__(self) -> Iterator[str]:
        for stage, count in self._counts.items():
            for number in range(count):
                yield f"{stage}-W{number}"

    def __len__(self) -> int:
        return sum(self._counts.values())

    def __repr__(self) -> str:
        return f"<WorkerMapping: {len(self)} workers, {len(self.started)} started>"


@frozen
class StageStats(PlainData):
    """
    The items of one stage, by status. Each item that reached the stage is counted once.

    Attributes:
        stage_name: The name of the stage.
        pending_items: How many have reached the stage and are not in progress: they are in its
            queue, wait for room there, or wait for their next attempt. 0 once the run has ended.
        in_progress_items: How many are being processed by a worker.
        completed_items: How many have left the stage with success, without skipped ones.
        failed_items: How many have failed at the stage for good.
        skipped_items: How many have left the stage unchanged, because ``skip_if`` returned a true
            value.
    """

    stage_name: str
    pending_items: int = 0
    in_progress_items: int = 0
    completed_items: int = 0
    failed_items: int = 0
    skipped_items: int = 0


@frozen
class PipelineStats(PlainData):
    """
    The items of a run, in numbers.

    Attributes:
        items_processed: How many items have left the last stage.
        items_failed: How many items have failed for good, in any stage.
        items_in_flight: How many items are pending or in progress at any stage; 0 once the run has
            ended.
        queue_sizes: By stage name, the number of pending items, but at most the capacity of the
            queue: items beyond that wait for room, or for their next attempt.
        stage_stats: By stage name, the statistics of the stage.
    """

    items_processed: int
    items_failed: int
    items_in_flight: int
    queue_sizes: dict[str, int]
    stage_stats: dict[str, StageStats]


@frozen
class ErrorSummary(PlainData):
    """
    Counts of the failures.

    Attributes:
        total_failed: How many items failed for good.
        errors_by_type: By the name of the exception's class, most frequent first.
        errors_by_stage: By the name of the stage, most frequent first.
        failed_items: The failures that are kept, in the order in which the items failed.
    """

    total_failed: int
    errors_by_type: dict[str, int]
    errors_by_stage: dict[str, int]
    failed_items: list[FailedItem] = field(repr=first_three)

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


def _first_three_values(workers: Mapping[str, object]) -> str:
    return first_three(workers.values())


@frozen
class DashboardSnapshot(PlainData):
    """
    The state of a run for a dashboard, taken at one instant.

    Attributes:
        worker_states: By worker name; workers that have not been started are idle.
        worker_metrics: By worker name.
        pipeline_stats: How many items are where.
        error_summary: Counts of the failures.
        timestamp: When it was taken, in Unix seconds.
    """

    worker_states: WorkerMapping[WorkerState] = field(repr=_first_three_values)
    worker_metrics: WorkerMapping[WorkerMetrics] = field(repr=_first_three_values)
    pipeline_stats: PipelineStats
    error_summary: ErrorSummary
    timestamp: float
