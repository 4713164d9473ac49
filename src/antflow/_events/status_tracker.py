"""The status tracker: a subscriber that remembers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, get_args

from .._definition.callables import handler_name
from .._definition.limits import check_limits
from .._definition.validation import check_callback, check_int
from .._model.events import Status, StatusEvent, TaskEvent
from .._model.items import FailedItem
from .._model.snapshots import ErrorSummary
from .event_bus import EventBus, Subscription

Callback = Callable[..., Any]


class StatusTracker:
    """
    Remembers the status of each item, and calls back when something happens.

    Give it to a pipeline: ``Pipeline(stages, status_tracker=tracker)``. It keeps what it learned
    when the run is over, also over several runs; `clear()` makes it forget. Items are told apart by
    id: if several have the same one, they share an entry.

    All callbacks may be sync or async and are awaited before the item moves on. When one is called,
    the tracker already knows the event. One that raises is logged once, counted in
    `callback_errors`, and hurts no item.

    Args:
        on_status_change: Called with each `StatusEvent`.
        on_task_start: Called with the `TaskEvent` when an attempt of a task begins.
        on_task_complete: Called with the `TaskEvent` when a task succeeded.
        on_task_retry: Called with the `TaskEvent` when a task failed and will be tried again.
        on_task_fail: Called with the `TaskEvent` when a task failed for good.
        task_concurrency_limits: By task name, how many attempts may run at the same time in all
            stages of a pipeline together. A name that the pipeline lacks is ignored.
        on_success: ``on_success(item_id, value, payload)`` is called when an item leaves the last
            stage; *payload* is a new dict of id, value and metadata.
        on_failure: ``on_failure(item_id, error, payload)`` is called when an item fails for good.
        history: True keeps all events of each item, n the last n, False just the present status.

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
        self._memory = Subscription(self._remember, "the memory of a StatusTracker")
        self._on_status_change = _subscription("on_status_change", on_status_change, "event")
        self._on_task = {
            "start": _subscription("on_task_start", on_task_start, "event"),
            "complete": _subscription("on_task_complete", on_task_complete, "event"),
            "retry": _subscription("on_task_retry", on_task_retry, "event"),
            "fail": _subscription("on_task_fail", on_task_fail, "event"),
        }
        self.on_success = _subscription("on_success", on_success, "item_id", "value", "payload")
        self.on_failure = _subscription("on_failure", on_failure, "item_id", "error", "payload")
        self._length = None if history is True else max(1, int(history))
        self._of_stages: list[Subscription] = []
        self.clear()

    def clear(self) -> None:
        """Forget all items."""
        # By item, its events, as far as they are kept: the last tells where it is.
        self._events: dict[Any, list[StatusEvent] | deque[StatusEvent]] = {}
        # All are there from the start: what is added to them in one thread, by a run of its own, is
        # not lost to another, which it could be while the first of a kind is looked up.
        self._counts: dict[Status, int] = dict.fromkeys(get_args(Status), 0)

    def connect(self, bus: EventBus) -> None:
        """Listen to *bus*; `Pipeline` does this for the tracker that it is given."""
        bus.subscribe(StatusEvent, self._memory)
        if self._on_status_change is not None:
            bus.subscribe(StatusEvent, self._on_status_change)
        if any(self._on_task.values()):
            bus.subscribe(TaskEvent, self._pass_on)

    def count_errors_of(self, subscription: Subscription) -> None:
        """Add the errors of *subscription* to `callback_errors`; `Pipeline` does it for stages'."""
        self._of_stages.append(subscription)

    @property
    def callback_errors(self) -> int:
        """
        How often a callback raised, of this tracker or of a stage of its pipelines.

        An id that raises when it is compared counts, too.
        """
        subscriptions = (
            self._memory,
            self._on_status_change,
            self.on_success,
            self.on_failure,
            *self._on_task.values(),
            *self._of_stages,
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
        """Return the events of an item, oldest first, as far as ``history`` keeps them."""
        return list(self._events.get(_key(item_id), ()))

    def get_stats(self) -> dict[str, int]:
        """Return how many items have each status now; all six statuses are there."""
        return dict[str, int](self._counts.items())

    def get_tracked_ids(self) -> list[Any]:
        """Return the ids of all known items, in the order in which they were first seen."""
        return [event.item_id for event in self._latest()]

    def get_failed_items(self) -> list[FailedItem]:
        """Return the items whose latest status is ``failed``."""
        return [event.failed_item for event in self._latest() if event.failed_item is not None]

    def get_error_summary(self) -> ErrorSummary:
        """Return those failures, counted."""
        return ErrorSummary.of(self.get_failed_items())

    def _latest(self) -> list[StatusEvent]:
        return [events[-1] for events in self._events.values()]

    def _remember(self, event: StatusEvent) -> None:
        key = event.item_id
        try:
            events = self._events.get(key)
        except Exception:
            # Or it is compared with the others, and refuses that again.
            key = _key(key)
            events = self._events.get(key)
        counts = self._counts
        if events is None:
            self._events[key] = [event] if self._length is None else deque([event], self._length)
        else:
            counts[events[-1].status] -= 1
            events.append(event)
        counts[event.status] += 1

    def _pass_on(self, event: TaskEvent) -> Any:
        subscription = self._on_task[event.event_type]
        return None if subscription is None else subscription.notify(event)


def _subscription(name: str, callback: Callback | None, *arguments: str) -> Subscription | None:
    check_callback("StatusTracker", name, callback, *arguments)
    if callback is None:
        return None
    return Subscription(callback, f"{name} callback {handler_name(callback)!r}")


def _key(item_id: Any) -> Any:
    """
    Return what *item_id* is filed under: itself, or its whole text if it cannot be hashed.

    What has no text either is told by its identity: the event that is filed keeps it alive.
    """
    try:
        hash(item_id)
    except Exception:
        try:
            return _key, repr(item_id)
        except Exception:
            return _key, id(item_id)
    return item_id
