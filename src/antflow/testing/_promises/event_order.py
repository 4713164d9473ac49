"""P3: the events of an item come in a legal order."""

from __future__ import annotations

from collections.abc import Hashable

from ..._definition.callables import task_name
from ..._definition.stage import Stage
from ..._model.events import TRANSITIONS, Status, StatusEvent, TaskEvent
from .._equality import equality_key
from .entries import event_label, status_label, task_event_label
from .event_log import EventLog
from .violation import raise_violation

P3 = "P3 item order"


class _ItemState:
    """
    Where one item is, and which events may come next.

    Args:
        stages: The stages of the pipeline.

    Attributes:
        expected: The labels of the events that may come next, as `event_label()` returns them.
            Empty if the item has ended.
    """

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        self._stages = stages
        self._stage_index = 0
        self._status: Status | None = None
        self._task_index = 0
        self._attempt = 1
        # An item may be fed into any stage.
        self.expected = [
            status_label(stage.name, status) for stage in stages for status in TRANSITIONS[None]
        ]

    def advance(self, event: StatusEvent | TaskEvent) -> None:
        """Move on by *event*, which must be one of those expected."""
        if isinstance(event, StatusEvent):
            self._stage_index = [stage.name for stage in self._stages].index(event.stage)
            self._status = event.status
            self.expected = self._after_status(event.status)
        else:
            self._attempt = event.attempt
            self.expected = getattr(self, f"_after_{event.event_type}")()

    @property
    def _stage(self) -> Stage:
        return self._stages[self._stage_index]

    @property
    def _has_stage_retries(self) -> bool:
        return self._stage.retry_policy.scope == "stage"

    def _statuses(self, *possible: Status) -> list[str]:
        """Return the labels of those *possible* statuses that may follow the current one."""
        legal = TRANSITIONS[self._status]
        return [status_label(self._stage.name, status) for status in possible if status in legal]

    def _task_events(self, *types: str) -> list[str]:
        name = task_name(self._stage.tasks[self._task_index])
        return [task_event_label(self._stage.name, kind, name, self._attempt) for kind in types]

    def _after_status(self, status: Status) -> list[str]:
        if status == "in_progress":
            self._task_index = 0
            # If skip_if raises, the item fails before its first task starts.
            may_skip = self._stage.skip_if is not None
            skips = self._statuses("skipped", "failed") if may_skip else []
            return self._task_events("start") + skips
        if status == "queued":
            self._attempt = 1
        elif status == "retrying":
            self._attempt += 1
        elif status in ("completed", "skipped"):
            if self._stage_index + 1 == len(self._stages):
                return []
            self._stage_index += 1
            self._status = None
        return self._statuses(*sorted(TRANSITIONS[self._status]))

    def _after_start(self) -> list[str]:
        return self._task_events("complete", "retry", "fail")

    def _after_complete(self) -> list[str]:
        self._task_index += 1
        if self._task_index == len(self._stage.tasks):
            return self._statuses("completed")
        if not self._has_stage_retries:
            self._attempt = 1
        return self._task_events("start")

    def _after_retry(self) -> list[str]:
        if self._has_stage_retries:
            return self._statuses("retrying")
        # "fail" follows if a hook of the user's that stamina calls raises before the next attempt.
        fails = self._task_events("fail")
        self._attempt += 1
        return self._task_events("start") + fails

    def _after_fail(self) -> list[str]:
        return self._statuses("failed")


def check_event_order(log: EventLog) -> None:
    """Check that each event may follow the previous event of the same item."""
    states: dict[Hashable, _ItemState] = {}
    previous: dict[Hashable, str] = {}
    for entry in log.entries:
        if not isinstance(entry, (StatusEvent, TaskEvent)):
            continue
        key = equality_key(entry.item_id)
        state = states.setdefault(key, _ItemState(log.pipeline.stages))
        label = event_label(entry)
        if label not in state.expected:
            position = f"followed {previous[key]!r}" if key in previous else "was the first event"
            legal = " or ".join(map(repr, state.expected)) or "no further event"
            observed = f"{label!r} {position}"
            raise_violation(P3, log, entry.item_id, observed, f"Expected {legal}", entry.stage)
        state.advance(entry)
        previous[key] = label
