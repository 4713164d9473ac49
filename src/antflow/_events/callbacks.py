"""Who is told of values: the callbacks of the stages and of the tracker, stage by stage."""

from __future__ import annotations

from .._definition.callables import handler_name
from .._definition.stage import Callback, Stage
from .._workers.pool import StageCallbacks
from .event_bus import Subscription
from .status_tracker import StatusTracker


def build_callbacks(
    stages: tuple[Stage, ...], tracker: StatusTracker | None
) -> tuple[StageCallbacks, ...]:
    """Collect for each stage whom to tell of its items: its own callbacks, then the tracker's."""

    def own(stage: Stage, name: str, callback: Callback | None) -> tuple[Subscription, ...]:
        if callback is None:
            return ()
        what = f"{name} callback {handler_name(callback)!r} of stage {stage.name!r}"
        subscription = Subscription(callback, what)
        if tracker is not None:
            tracker.count_errors_of(subscription)
        return (subscription,)

    def of_tracker(subscription: Subscription | None) -> tuple[Subscription, ...]:
        return () if subscription is None else (subscription,)

    leaves = of_tracker(None if tracker is None else tracker.on_success)
    fails = of_tracker(None if tracker is None else tracker.on_failure)
    return tuple(
        StageCallbacks(
            own(stage, "on_success", stage.on_success) + (leaves if stage is stages[-1] else ()),
            own(stage, "on_failure", stage.on_failure) + fails,
            own(stage, "on_skip", stage.on_skip) + (leaves if stage is stages[-1] else ()),
        )
        for stage in stages
    )
