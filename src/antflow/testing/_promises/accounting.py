"""P1 and P2: what went in came out, once and in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from ..._definition.validation import reject_argument
from ..._model.describe import short_repr
from ..._model.events import StatusEvent
from ..._model.results import FailedItem, PipelineResult, Results
from .._equality import key_of
from .entries import Opened, Read
from .event_log import EventLog
from .violation import broken

P1 = "P1 accounted"
P2 = "P2 input order"

Outcome = PipelineResult | FailedItem


class Accounts:
    """What *log* knows of the items of a run as a whole, by their keys."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.reads: dict[Hashable, Read] = {}
        # Only then it is known what was read.
        self.source_seen = any(isinstance(entry, Opened) for entry in log.entries)
        self.ids: dict[Hashable, Any] = {}
        self.last: dict[Hashable, StatusEvent] = {}
        self.ends: dict[Hashable, list[StatusEvent]] = {}
        last_stage = log.pipeline.stages[-1].name
        for entry in log.entries:
            if isinstance(entry, Read):
                self._enter(entry)
            elif isinstance(entry, StatusEvent):
                key = key_of(entry.item_id)
                self.ids.setdefault(key, entry.item_id)
                self.last[key] = entry
                left = entry.status in ("completed", "skipped") and entry.stage == last_stage
                if left or entry.status == "failed":
                    self.ends.setdefault(key, []).append(entry)

    def _enter(self, read: Read) -> None:
        key = key_of(read.item_id)
        other = self.reads.setdefault(key, read)
        if other is not read:
            raise ValueError(
                f"assert_promises() tells items apart by their ids, and numbers "
                f"{other.sequence_id} and {read.sequence_id} of the input both have the id "
                f"{short_repr(read.item_id)}. Feed them with ids of their own: Item(value, id=…)."
            )
        self.ids[key] = read.item_id

    def check_outcomes(self, complete: bool) -> None:
        """Each item that was read has one outcome; or, if not *complete*, at most one."""
        for key, item_id in self.ids.items():
            ends = self.ends.get(key, [])
            if self.source_seen and key not in self.reads:
                broken(
                    P1,
                    self.log,
                    item_id,
                    "it has events, and was never read",
                    "There should be none; or the run was fed with more than went through "
                    "log.source(), or the log was used for a second run",
                )
            if len(ends) > 1:
                broken(
                    P1,
                    self.log,
                    item_id,
                    f"it has {len(ends)} outcomes",
                    "There should be one; or two items have this id, or the log was used for a "
                    "second run",
                    ends[-1].stage,
                )
            if complete and not ends:
                last = self.last.get(key)
                broken(
                    P1,
                    self.log,
                    item_id,
                    "it has no outcome",
                    "It should have been a result or a failure; if the run was cancelled, write "
                    "assert_promises(…, complete=False)",
                    None if last is None else last.stage,
                )

    def check_results(self, given: Sequence[PipelineResult], complete: bool) -> None:
        """What came out is what the events say."""
        results, failures = split(given)
        outcomes: list[tuple[Hashable, Outcome, bool]] = [
            *((key_of(result.id), result, True) for result in results),
            *((key_of(failure.item_id), failure, False) for failure in failures),
            *((key_of(result.id), result, False) for result in given if not result.is_success),
        ]
        counts = Counter(key for key, _, _ in outcomes)
        for key, outcome, success in outcomes:
            item_id = outcome.id if isinstance(outcome, PipelineResult) else outcome.item_id
            word = "results" if success else "failures"
            if counts[key] > 1:
                came = f"it came out {counts[key]} times"
                broken(P1, self.log, item_id, came, "Once is right")
            if key not in self.ids:
                came = f"it is among the {word}, and has no events"
                broken(P1, self.log, item_id, came, "An item that was not read has no outcome")
            ends = self.ends.get(key)
            if ends and (ends[0].status != "failed") is not success:
                came = f"it is among the {word}, and the events say {ends[0].status}"
                broken(P1, self.log, item_id, came, "Both should agree", ends[0].stage)
        if complete:
            self._check_missing(given, counts)

    def _check_missing(self, given: Sequence[PipelineResult], out: Counter[Hashable]) -> None:
        kept = self.log.pipeline.collect_results or not isinstance(given, Results)
        for key, (end, *_) in self.ends.items():
            if not out[key] and (kept or end.status == "failed"):
                broken(
                    P1,
                    self.log,
                    end.item_id,
                    f"the events say {end.status}, and it did not come out",
                    "It should be among the results and failures: give what run() returned, as it "
                    "is, or all results of a stream; or write complete=False",
                    end.stage,
                )

    def check_order(self, given: Sequence[PipelineResult], ordered: bool) -> None:
        """Results have the numbers under which they were read, and, if *ordered*, go up."""
        before = None
        for result in given:
            read = self.reads.get(key_of(result.id))
            number = result.sequence_id
            if read is not None and read.sequence_id != number:
                came = f"its sequence_id is {number}"
                broken(P2, self.log, result.id, came, f"It was read as number {read.sequence_id}")
            if ordered and before is not None and before.sequence_id >= number:
                broken(
                    P2,
                    self.log,
                    result.id,
                    f"number {number} of the input came out after number {before.sequence_id}",
                    "Results should be in the order of the input; for a stream in order of "
                    "arrival, take them through log.sink()",
                )
            before = result


def split(given: Iterable[PipelineResult]) -> tuple[list[PipelineResult], list[FailedItem]]:
    """Return the results that succeeded, and the failures that `run()` keeps beside them."""
    results = list(given)
    for result in results:
        if not isinstance(result, PipelineResult):
            hint = "Give what run() returned, as it is, or a list of what a stream gave."
            reject_argument("assert_promises()", "results", "results of a pipeline", result, hint)
    failures = given.failures if isinstance(given, Results) else []
    return [result for result in results if result.is_success], failures
