"""`StatusTracker`: stores the status of each item, and calls the user's callbacks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, get_args

from .._definition.callables import handler_name
from .._definition.limits import check_limits
from .._definition.validation import check_callback, check_int
from .._model.events import Status, StatusEvent, TaskEvent
from .._model.results import FailedItem
from .._model.snapshots import ErrorSummary
from .event_bus import EventBus, Subscription

Callback = Callable[..., Any]


class StatusTracker:
    """
    Stores the status of each item, and calls callbacks.

    Pass it to a pipeline: ``Pipeline(stages, status_tracker=tracker)``. It keeps its entries after
    a run and across several runs; `clear()` removes them. Items are distinguished by id: items with
    the same id share an entry.

    All callbacks may be sync or async, and async ones are awaited before the item moves on. The
    tracker is updated before they are called. A callback that raises is logged the first time and
    counted in `callback_errors`, and does not affect the item.

    Args:
        on_status_change: Called with each `StatusEvent`.
        on_task_start: Called with the `TaskEvent` when an attempt of a task starts.
        on_task_complete: Called with the `TaskEvent` when an attempt has succeeded.
        on_task_retry: Called with the `TaskEvent` when an attempt has failed and another follows.
        on_task_fail: Called with the `TaskEvent` when an attempt has failed and no other follows.
        task_concurrency_limits: By task name, how many attempts may run at the same time in all
            stages together, of all runs in one event loop that have this tracker. A run inside a
            task that is limited itself has limits of its own. A name that no task of the pipeline
            has is ignored.
        on_success: ``on_success(item_id, value, payload)`` is called when an item leaves the last
            stage; *payload* is a new dict of id, value and metadata.
        on_failure: ``on_failure(item_id, error, payload)`` is called when an item fails for good;
            *payload* is the same as for a `Stage`.
        history: How many events of each item are kept: True for all, a number n for the last n,
            False for the last one.

    Raises:
        StageValidationError: An argument is not valid.
    """

    def __init__(
        self,
        on_status_change: Callback | None = None,
        on_task_start: Callback | None = None,
        on_task_complete: Callback | None = None,
        on_task_retry: Callback | None = None,
        on_task_fail: Callback | None = None,
        *,
        task_concurrency_limits: Mapping[str, int] | None = None,
        on_success: Callback | None = None,
        on_failure: Callback | None = None,
        history: bool | int = True,
    ) -> None:
        limits = {} if task_concurrency_limits is None else task_concurrency_limits
        check_limits("StatusTracker", limits)
        self.task_concurrency_limits = dict(limits)
        if not isinstance(history, bool):
            check_int("StatusTracker", "history", history, at_least=1)
        self._own = Subscription(self._update, "a StatusTracker")
        self._on_status_change = _subscription("on_status_change", on_status_change, "event")
        self._on_task = {
            "start": _subscription("on_task_start", on_task_start, "event"),
            "complete": _subscription("on_task_complete", on_task_complete, "event"),
            "retry": _subscription("on_task_retry", on_task_retry, "event"),
            "fail": _subscription("on_task_fail", on_task_fail, "event"),
        }
        self.on_success = _subscription("on_success", on_success, "item_id", "value", "payload")
        self.on_failure = _subscription("on_failure", on_failure, "item_id", "error", "payload")
        self._history_length = None if history is True else max(1, int(history))
        self._stage_callbacks: list[Subscription] = []
        self.clear()

    def clear(self) -> None:
        """Remove all entries."""
        # By item, the events that are kept; the last one has the current status.
        self._events: dict[Any, list[StatusEvent] | deque[StatusEvent]] = {}
        # All statuses are keys from the start, so that the dict never changes its size while
        # another thread reads it.
        self._counts: dict[Status, int] = dict.fromkeys(get_args(Status), 0)

    def connect(self, bus: EventBus) -> None:
        """Subscribe to *bus*; `Pipeline` does this with the tracker that it is given."""
        bus.subscribe(StatusEvent, self._own)
        if self._on_status_change is not None:
            bus.subscribe(StatusEvent, self._on_status_change)
        if any(self._on_task.values()):
            bus.subscribe(TaskEvent, self._notify_callback)

    def count_errors_of(self, subscription: Subscription) -> None:
        """Include the errors of *subscription*, a callback of a stage, in `callback_errors`."""
        self._stage_callbacks.append(subscription)

    @property
    def callback_errors(self) -> int:
        """
        How often a callback of this tracker, or of a stage of its pipelines, has raised.

        An item id that raises when it is compared is counted as well.
        """
        subscriptions = (
            self._own,
            self._on_status_change,
            self.on_success,
            self.on_failure,
            *self._on_task.values(),
            *self._stage_callbacks,
        )
        return sum(item.errors for item in subscriptions if item is not None)

    def get_status(self, item_id: Any) -> StatusEvent | None:
        """Return the latest event of an item, or None if it is unknown."""
        events = self._events.get(_key(item_id))
        return None if events is None else events[-1]

    def get_by_status(self, status: Status) -> list[StatusEvent]:
        """
        Return the latest events of the items that have *status* now.

        Raises:
            ValueError: There is no such status.
        """
        if status not in get_args(Status):
            names = ", ".join(map(repr, get_args(Status)))
            raise ValueError(f"status must be one of {names}, got {status!r}")
        return [event for event in self._latest() if event.status == status]

    def get_history(self, item_id: Any) -> list[StatusEvent]:
        """Return the events of an item that were kept, oldest first."""
        return list(self._events.get(_key(item_id), ()))

    def get_stats(self) -> dict[str, int]:
        """Return how many items have each status now; all six statuses are keys."""
        return dict[str, int](self._counts.items())

    def get_tracked_ids(self) -> list[Any]:
        """Return the ids of all items with an entry, in the order of their first event."""
        return [event.item_id for event in self._latest()]

    def get_failed_items(self) -> list[FailedItem]:
        """Return the items whose latest status is ``failed``."""
        return [event.failed_item for event in self._latest() if event.failed_item is not None]

    def get_error_summary(self) -> ErrorSummary:
        """Return counts of the items whose latest status is ``failed``."""
        return ErrorSummary.of(self.get_failed_items())

    def _latest(self) -> list[StatusEvent]:
        return [events[-1] for events in self._events.values()]

    def _update(self, event: StatusEvent) -> None:
        key = event.item_id
        try:
            events = self._events.get(key)
        except Exception:
            # The id cannot be hashed, or raises when it is compared with others.
            key = _key(key)
            events = self._events.get(key)
        counts = self._counts
        if events is None:
            self._events[key] = (
                [event] if self._history_length is None else deque([event], self._history_length)
            )
        else:
            counts[events[-1].status] -= 1
            events.append(event)
        counts[event.status] += 1

    def _notify_callback(self, event: TaskEvent) -> Any:
        subscription = self._on_task[event.event_type]
        return None if subscription is None else subscription.notify(event)


def _subscription(name: str, callback: Callback | None, *arguments: str) -> Subscription | None:
    check_callback("StatusTracker", name, callback, *arguments)
    if callback is None:
        return None
    return Subscription(callback, f"{name} callback {handler_name(callback)!r}")


def _key(item_id: Any) -> Any:
    """
    Return the key of *item_id*: itself, or its whole repr if it cannot be hashed.

    If its repr raises as well, the key is its identity; the event in the entry keeps it alive.
    """
    try:
        hash(item_id)
    except Exception:
        try:
            return _key, repr(item_id)
        except Exception:
            return _key, id(item_id)
    return item_id
