"""What a task can ask for: the run and the item that it belongs to."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from .._backend.context import current_membership, is_inside
from .._model.errors import PipelineError
from .live_run import PipelineRun


@frozen
class CurrentItem:
    """
    The item that a task processes.

    Attributes:
        id: The id of the item.
        metadata: A copy of what came with the input beside id and value.
        stage: The name of the stage.
        attempt: The number of the attempt, from 1: of the task (per-task retry) or of the stage
            (per-stage retry).
        worker: The name of the worker.
    """

    id: Any
    metadata: dict[str, Any]
    stage: str
    attempt: int
    worker: str


def current_item() -> CurrentItem:
    """
    Return the item that the calling task processes; also in a plain function, in its thread.

    Raises:
        PipelineError: The caller is not a task of a pipeline. A callback, and a loop task that a
            task has started, are none.
    """
    membership = current_membership()
    worker = membership.worker if membership is not None and is_inside() else None
    record = None if worker is None else worker.record
    if worker is None or record is None:
        raise PipelineError(
            "current_item() was called outside of a task: it tells a task which item it processes. "
            "Call it in the task, and pass what you need to callbacks and loop tasks."
        )
    metadata = dict(record.metadata or {})
    return CurrentItem(record.id, metadata, worker.stage, worker.attempt, worker.name)


def current_run() -> PipelineRun:
    """
    Return the run that the calling task or callback belongs to: to feed it, or to shut it down.

    A loop task that a task has started belongs to the same run, until that ends.

    Raises:
        PipelineError: The caller does not belong to a run.
    """
    membership = current_membership()
    run = None if membership is None else membership.token.run
    if run is None:
        raise PipelineError(
            "current_run() was called outside of a run: it tells a task or callback which run it "
            "belongs to. Elsewhere, use what pipeline.open() or pipeline.stream() returned."
        )
    return PipelineRun(run)
