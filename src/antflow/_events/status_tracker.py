"""`StatusTracker`: stores the status of each item, and calls the user's callbacks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .._definition.callables import handler_name
from .._definition.limits import check_limits
from .._definition.validation import check_callback, check_int
from .._model.events import Status, StatusEvent, TaskEvent
from .._model.record import Record
from .._model.results import FailedItem
from .._model.snapshots import ErrorSummary
from .event_bus import ErrorCount, EventBus, Subscription
from .item_columns import STATUSES
from .tracked_items import TrackedItems

Callback = Callable[..., Any]


class StatusTracker:
    """
    Stores the status of each item, and calls callbacks.

    Pass it to a pipeline: ``Pipeline(stages, status_tracker=tracker)``. It keeps its entries after
    a run and across several runs; `forget()` removes one entry, `clear()` removes all, and
    ``keep_done`` limits their number. Items are distinguished by id: items with the same id share
    an entry.

    The methods whose names begin with ``get`` may be called from any thread. In the thread of the
    event loop, the answers are exact. In other threads, these methods never raise because an item
    changes meanwhile, but the answer may be inexact for that item: it may be missing from a list or
    counted twice, and with ``history=False`` its timestamp may be that of the next event. Call
    `forget()` and `clear()` only in the thread of the event loop.

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
        keep_done: How many finished items keep their entries, always those that finished last; by
            default all. An item is finished when it has failed or has left the last stage.

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
        keep_done: int | None = None,
    ) -> None:
        limits = {} if task_concurrency_limits is None else task_concurrency_limits
        check_limits("StatusTracker", limits)
        self.task_concurrency_limits = dict(limits)
        if not isinstance(history, bool):
            check_int("StatusTracker", "history", history, at_least=1)
        if keep_done is not None:
            check_int("StatusTracker", "keep_done", keep_done, at_least=0)
        self._keep_done = keep_done
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
        self._length = None if history is True else max(1, int(history))
        self._stage_errors = ErrorCount()
        self._items = TrackedItems(self._length, self._own.raised)
        if keep_done is None:
            self._own.keep = self._items.keep
        # The slots of finished items, the first to finish first; only with `keep_done`.
        self._done: OrderedDict[int, None] = OrderedDict()

    def clear(self) -> None:
        """Remove all entries."""
        self._done.clear()
        self._items.clear()

    def forget(self, item_id: Any) -> bool:
        """
        Remove the entry of an item, with its history.

        The item itself is not affected: if it is not finished, its next event makes a new entry.

        Returns:
            Whether there was an entry.
        """
        slot = self._items.slot_of(item_id)
        if slot is None:
            return False
        self._done.pop(slot, None)
        return self._items.forget(slot)

    def connect(self, bus: EventBus, last_stage: str | None = None) -> None:
        """
        Subscribe to *bus*; `Pipeline` does this with the tracker that it is given.

        Args:
            bus: The bus of a pipeline.
            last_stage: The name of its last stage, for ``keep_done``. By default, items are
                finished when they leave any stage.
        """
        own = self._own
        if self._keep_done is not None:
            # One for each bus, because the last stage of one may be the first of another.
            keep = partial(self._keep_and_bound, last_stage)
            own = Subscription(partial(self._update, keep=keep), own.name, keep=keep)
        bus.subscribe(StatusEvent, own)
        if self._on_status_change is not None:
            bus.subscribe(StatusEvent, self._on_status_change)
        if any(self._on_task.values()):
            bus.subscribe(TaskEvent, self._notify_callback)

    def count_errors_of(self, subscription: Subscription) -> None:
        """Include the errors of *subscription*, a callback of a stage, in `callback_errors`."""
        # The subscription itself is not kept: it would keep the pipeline's callbacks alive.
        subscription.count = self._stage_errors

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
        )
        counted = sum(item.errors for item in subscriptions if item is not None)
        return counted + self._stage_errors.errors

    def get_status(self, item_id: Any) -> StatusEvent | None:
        """Return the latest event of an item, or None if it is unknown."""
        return self._items.latest(item_id)

    def get_by_status(self, status: Status) -> list[StatusEvent]:
        """
        Return the latest events of the items that have *status* now, in the order of their first.

        It takes time for the items that it returns, about a microsecond each, and hardly any for
        the others.

        Raises:
            ValueError: There is no such status.
        """
        if status not in STATUSES:
            names = ", ".join(map(repr, STATUSES))
            raise ValueError(f"status must be one of {names}, got {status!r}")
        items = self._items
        events = map(items.newest, items.with_status(status))
        return [event for event in events if event is not None and event.status == status]

    def get_history(self, item_id: Any) -> list[StatusEvent]:
        """Return the events of an item that were kept, oldest first."""
        return self._items.history(item_id)

    def get_stats(self) -> dict[str, int]:
        """Return how many items with an entry have each status; all six statuses are keys."""
        return self._items.counts()

    def get_tracked_ids(self) -> list[Any]:
        """Return the ids of all items with an entry, in the order of their first event."""
        return self._items.ids()

    def get_failed_items(self) -> list[FailedItem]:
        """Return the items whose latest status is ``failed``."""
        items = self._items
        failures = map(items.failure, items.with_status("failed"))
        return [failure for failure in failures if failure is not None]

    def get_error_summary(self) -> ErrorSummary:
        """Return counts of the items whose latest status is ``failed``."""
        return ErrorSummary.of(self.get_failed_items())

    def _update(self, event: StatusEvent, keep: Callable[..., None] | None = None) -> None:
        """Keep an event that was made outside, or that another subscription got first."""
        record = Record(0, None)
        record.id, record.metadata = event.item_id, event.metadata or None
        worker = None if event.worker is None else (event.stage, event.worker)
        failed = event.failed_item
        details: dict[str, Any] | None = None if failed is None else {}
        keep = keep or self._items.keep
        keep(None, event.status, record, event.stage, worker, event.timestamp, details, failed)

    def _keep_and_bound(
        self,
        last_stage: str | None,
        bus: EventBus | None,
        status: Status,
        record: Record,
        stage: str,
        *others: Any,
    ) -> None:
        """Keep an event; forget the item that finished first if there are too many."""
        assert self._keep_done is not None
        items, done = self._items, self._done
        items.keep(bus, status, record, stage, *others)
        slot = record.entry
        if slot is None:
            # The id raises when it is compared.
            return
        done.pop(slot, None)
        passed = status in ("completed", "skipped") and last_stage in (None, stage)
        if passed or status == "failed":
            done[slot] = None
            if len(done) > self._keep_done:
                items.forget(done.popitem(last=False)[0])

    def _notify_callback(self, event: TaskEvent) -> Any:
        subscription = self._on_task[event.event_type]
        return None if subscription is None else subscription.notify(event)


def _subscription(name: str, callback: Callback | None, *arguments: str) -> Subscription | None:
    check_callback("StatusTracker", name, callback, *arguments)
    if callback is None:
        return None
    return Subscription(callback, f"{name} callback {handler_name(callback)!r}")
