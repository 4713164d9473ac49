"""Async pipelines: stages with their own workers, retries, order, and a view of what goes on."""

from __future__ import annotations

from ._bus import EventBus as EventBus
from ._bus import Subscription as Subscription
from ._errors import AntFlowError as AntFlowError
from ._errors import PipelineError as PipelineError
from ._errors import StageValidationError as StageValidationError
from ._errors import TaskFailedError as TaskFailedError
from ._errors import TooManyFailuresError as TooManyFailuresError
from ._events import StatusEvent as StatusEvent
from ._events import TaskEvent as TaskEvent
from ._items import FailedItem as FailedItem
from ._items import Item as Item
from ._items import PipelineResult as PipelineResult
from ._items import Results as Results
from ._live import PipelineRun as PipelineRun
from ._pipeline import Pipeline as Pipeline
from ._retry import RetryPolicy as RetryPolicy
from ._stage import Stage as Stage
from ._stats import DashboardSnapshot as DashboardSnapshot
from ._stats import ErrorSummary as ErrorSummary
from ._stats import PipelineStats as PipelineStats
from ._stats import StageStats as StageStats
from ._stats import WorkerMetrics as WorkerMetrics
from ._stats import WorkerState as WorkerState
from ._stream import ResultStream as ResultStream
from ._tracker import StatusTracker as StatusTracker

__all__ = [
    "AntFlowError",
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
]

# Users see `antflow.Pipeline` in tracebacks, docs and pickles, not the room it was built in.
for _public in [globals()[name] for name in __all__]:
    _public.__module__ = __name__
