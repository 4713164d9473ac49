"""P3: the events of an item come in the one order that makes sense."""

from __future__ import annotations

from collections.abc import Hashable

from ..._definition.callables import task_name
from ..._definition.stage import Stage
from ..._model.events import StatusEvent, TaskEvent
from .._equality import key_of
from .entries import words_of
from .event_log import EventLog
from .violation import broken

P3 = "P3 item order"


class _Course:
    """
    The way of one item: which events may come next.

    Attributes:
        next: As `words_of` tells them.
    """

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        self._stages = stages
        self._at = 0
        self._task = 0
        self._attempt = 1
        # An item may be fed into any stage.
        self.next = [f"{stage.name}: queued" for stage in stages]

    def go(self, event: StatusEvent | TaskEvent) -> None:
        """Be past *event*, which is one of those that may come next."""
        step = event.status if isinstance(event, StatusEvent) else event.event_type
        if isinstance(event, StatusEvent):
            self._at = [stage.name for stage in self._stages].index(event.stage)
        else:
            self._attempt = event.attempt
        self.next = getattr(self, f"_after_{step}")()

    @property
    def _stage(self) -> Stage:
        return self._stages[self._at]

    @property
    def _retries_as_a_whole(self) -> bool:
        return self._stage.retry_policy.scope == "stage"

    def _status(self, *statuses: str) -> list[str]:
        return [f"{self._stage.name}: {status}" for status in statuses]

    def _event(self, *types: str) -> list[str]:
        name = task_name(self._stage.tasks[self._task])
        return self._status(*(f"{kind} {name}, attempt {self._attempt}" for kind in types))

    def _after_queued(self) -> list[str]:
        self._attempt = 1
        return self._status("in_progress")

    def _after_in_progress(self) -> list[str]:
        self._task = 0
        # If skip_if raises, the item fails before any task has begun.
        skips = [] if self._stage.skip_if is None else self._status("skipped", "failed")
        return self._event("start") + skips

    def _after_start(self) -> list[str]:
        return self._event("complete", "retry", "fail")

    def _after_complete(self) -> list[str]:
        self._task += 1
        if self._task == len(self._stage.tasks):
            return self._status("completed")
        if not self._retries_as_a_whole:
            self._attempt = 1
        return self._event("start")

    def _after_retry(self) -> list[str]:
        if self._retries_as_a_whole:
            return self._status("retrying")
        # The latter if a hook that the user gave to stamina raises after all.
        fails = self._event("fail")
        self._attempt += 1
        return self._event("start") + fails

    def _after_fail(self) -> list[str]:
        return self._status("failed")

    def _after_retrying(self) -> list[str]:
        self._attempt += 1
        return self._status("in_progress")

    def _after_completed(self) -> list[str]:
        self._at += 1
        return self._status("queued") if self._at < len(self._stages) else []

    _after_skipped = _after_completed

    def _after_failed(self) -> list[str]:
        return []


def check_grammar(log: EventLog) -> None:
    """Each event is one that may follow those before it of the same item."""
    courses: dict[Hashable, _Course] = {}
    before: dict[Hashable, str] = {}
    for entry in log.entries:
        if not isinstance(entry, (StatusEvent, TaskEvent)):
            continue
        key = key_of(entry.item_id)
        course = courses.setdefault(key, _Course(log.pipeline.stages))
        words = words_of(entry)
        if words not in course.next:
            place = f"after {before[key]!r}" if key in before else "first"
            instead = " or ".join(map(repr, course.next)) or "nothing more"
            came = f"{words!r} came {place}"
            broken(P3, log, entry.item_id, came, f"It should have been {instead}", entry.stage)
        course.go(entry)
        before[key] = words
