"""The callbacks with values: those of each stage, and those of the tracker."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from .._definition.callables import handler_name
from .._definition.stage import Callback, Stage
from .._model.record import Record
from .._model.results import FailedItem
from .event_bus import Subscription
from .status_tracker import StatusTracker


@frozen(eq=False)
class StageCallbacks:
    """The callbacks that receive a value when an item leaves a stage, in the order of calls."""

    success: tuple[Subscription, ...] = ()
    failure: tuple[Subscription, ...] = ()
    skip: tuple[Subscription, ...] = ()


def build_callbacks(
    stages: tuple[Stage, ...], tracker: StatusTracker | None
) -> tuple[StageCallbacks, ...]:
    """
    Return the callbacks of each stage: its own, then those of the tracker.

    The tracker's ``on_success`` is called at the last stage, also for items that it skips.
    """

    def own(stage: Stage, name: str, callback: Callback | None) -> tuple[Subscription, ...]:
        if callback is None:
            return ()
        label = f"{name} callback {handler_name(callback)!r} of stage {stage.name!r}"
        subscription = Subscription(callback, label)
        if tracker is not None:
            tracker.count_errors_of(subscription)
        return (subscription,)

    def of_tracker(subscription: Subscription | None) -> tuple[Subscription, ...]:
        return () if subscription is None else (subscription,)

    success = of_tracker(None if tracker is None else tracker.on_success)
    failure = of_tracker(None if tracker is None else tracker.on_failure)
    return tuple(
        StageCallbacks(
            own(stage, "on_success", stage.on_success) + (success if stage is stages[-1] else ()),
            own(stage, "on_failure", stage.on_failure) + failure,
            own(stage, "on_skip", stage.on_skip) + (success if stage is stages[-1] else ()),
        )
        for stage in stages
    )


async def notify_all(
    subscriptions: tuple[Subscription, ...],
    record: Record,
    outcome: Any,
    failed: FailedItem | None = None,
) -> None:
    """
    Call each of *subscriptions* with the id, *outcome*, and a new payload.

    If the item failed, the payload also has its ``input`` and the name of the ``stage``.
    """
    for subscription in subscriptions:
        payload = record.payload()
        if failed is not None:
            payload |= {"input": failed.value, "stage": failed.stage}
        pending = subscription.notify(record.id, outcome, payload)
        if pending is not None:
            await pending
