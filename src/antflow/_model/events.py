"""Events: changes of an item's status at a stage, and attempts of its tasks."""

from __future__ import annotations

from typing import Any, Literal

from attrs import field, frozen

from .fast_frozen import mutable_twin, with_lazy_metadata
from .plain_data import PlainData
from .results import FailedItem

Status = Literal["queued", "in_progress", "completed", "failed", "retrying", "skipped"]
TaskEventType = Literal["start", "complete", "retry", "fail"]

# Which statuses may follow each status, for one item at one stage. None stands for an item that has
# not reached the stage. An item leaves the stage with a status that no other follows.
TRANSITIONS: dict[Status | None, tuple[Status, ...]] = {
    None: ("queued",),
    "queued": ("in_progress",),
    "in_progress": ("completed", "failed", "retrying", "skipped"),
    # An item fails during its back-off if a hook that the user gave to stamina raises.
    "retrying": ("in_progress", "failed"),
    "completed": (),
    "failed": (),
    "skipped": (),
}


@with_lazy_metadata
@frozen
class StatusEvent(PlainData):
    """
    An item changed its status at a stage.

    Attributes:
        item_id: The id of the item.
        stage: The name of the stage.
        status: ``queued``, ``in_progress``, ``completed``, ``failed``, ``skipped``, or ``retrying``
            when the item goes back to the queue of its stage.
        worker: The name of the worker, ``"<stage>-W<n>"``; None while the item is queued.
        timestamp: Unix seconds.
        metadata: The metadata of the item. On ``failed`` also ``error`` (text), ``error_type``,
            ``task_name`` and ``attempts``; on ``retrying`` also ``error``, ``error_type``,
            ``attempt`` (the number of the next attempt) and ``retry`` (the number of the retry,
            from 1).
        failed_item: On ``failed``, the `FailedItem`.
    """

    item_id: Any
    stage: str
    status: Status
    worker: str | None
    timestamp: float
    metadata: dict[str, Any] = field(factory=dict)
    failed_item: FailedItem | None = field(default=None, repr=False)

    @property
    def worker_id(self) -> int | None:
        """The number of the worker within its stage, from 0; None while the item is queued."""
        return None if self.worker is None else int(self.worker.rpartition("-W")[2])

    @property
    def exception(self) -> BaseException | None:
        """On ``failed``, the exception itself."""
        return None if self.failed_item is None else self.failed_item.exception


MutableStatusEvent = mutable_twin(StatusEvent)


@frozen
class TaskEvent(PlainData):
    """
    One attempt of one task began or ended.

    Attributes:
        item_id: The id of the item.
        stage: The name of the stage.
        task_name: The name of the task function.
        worker: The name of the worker.
        event_type: ``start``, ``complete``, ``retry`` (failed, and another attempt follows) or
            ``fail`` (failed for good).
        attempt: The number of this attempt, from 1.
        timestamp: Unix seconds.
        error: The exception on ``retry`` and ``fail``, else None.
        duration: How long the attempt took, in seconds; None on ``start``.
    """

    item_id: Any
    stage: str
    task_name: str
    worker: str
    event_type: TaskEventType
    attempt: int
    timestamp: float
    error: BaseException | None = None
    duration: float | None = None
