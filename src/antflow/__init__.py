"""Async pipelines: stages with their own workers, retries, input order, and observability."""

from __future__ import annotations

from ._api.current import CurrentItem as CurrentItem
from ._api.current import current_item as current_item
from ._api.current import current_run as current_run
from ._api.live_run import PipelineRun as PipelineRun
from ._api.pipeline import Pipeline as Pipeline
from ._api.result_stream import ResultStream as ResultStream
from ._definition.retry_policy import RetryPolicy as RetryPolicy
from ._definition.stage import Stage as Stage
from ._events.event_bus import EventBus as EventBus
from ._events.event_bus import Subscription as Subscription
from ._events.status_tracker import StatusTracker as StatusTracker
from ._model.errors import AntFlowError as AntFlowError
from ._model.errors import PipelineError as PipelineError
from ._model.errors import StageValidationError as StageValidationError
from ._model.errors import TaskFailedError as TaskFailedError
from ._model.events import StatusEvent as StatusEvent
from ._model.events import TaskEvent as TaskEvent
from ._model.items import Item as Item
from ._model.results import FailedItem as FailedItem
from ._model.results import PipelineResult as PipelineResult
from ._model.results import Results as Results
from ._model.results import TooManyFailuresError as TooManyFailuresError
from ._model.snapshots import DashboardSnapshot as DashboardSnapshot
from ._model.snapshots import ErrorSummary as ErrorSummary
from ._model.snapshots import PipelineStats as PipelineStats
from ._model.snapshots import StageStats as StageStats
from ._model.snapshots import WorkerMetrics as WorkerMetrics
from ._model.snapshots import WorkerState as WorkerState

__all__ = [
    "AntFlowError",
    "CurrentItem",
    "DashboardSnapshot",
    "ErrorSummary",
    "EventBus",
    "FailedItem",
    "Item",
    "Pipeline",
    "PipelineError",
    "PipelineResult",
    "PipelineRun",
    "PipelineStats",
    "ResultStream",
    "Results",
    "RetryPolicy",
    "Stage",
    "StageStats",
    "StageValidationError",
    "StatusEvent",
    "StatusTracker",
    "Subscription",
    "TaskEvent",
    "TaskFailedError",
    "TooManyFailuresError",
    "WorkerMetrics",
    "WorkerState",
    "current_item",
    "current_run",
]

# Tracebacks, docs and pickles show `antflow.Pipeline`, and not the module that defines it.
for _public in [globals()[name] for name in __all__]:
    _public.__module__ = __name__
