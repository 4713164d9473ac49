"""P1 and P2: each input has one outcome, and results are in input order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from ..._definition.validation import reject_argument
from ..._model.describe import short_repr
from ..._model.events import StatusEvent
from ..._model.results import FailedItem, PipelineResult, Results
from .._equality import equality_key
from .entries import Opened, Read
from .event_log import EventLog
from .violation import raise_violation

P1 = "P1 accounted"
P2 = "P2 input order"

Outcome = PipelineResult | FailedItem


class Accounting:
    """
    What a log says about the items of a run.

    The attributes that are dicts have the equality keys of the item ids as their keys.

    Args:
        log: The log.

    Attributes:
        log: The log.
        source_recorded: Whether a source was wrapped in `EventLog.source()`. Only then is it known
            which items were read.
        ids: The ids of all items that were read or have status events.
        reads: When an item was read.
        last_events: The latest status event of an item.
        final_events: The status events that ended an item: a failure at any stage, or completed or
            skipped at the last stage. In a correct run there is at most one.

    Raises:
        ValueError: Two items have the same id.
    """

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.source_recorded = any(isinstance(entry, Opened) for entry in log.entries)
        self.ids: dict[Hashable, Any] = {}
        self.reads: dict[Hashable, Read] = {}
        self.last_events: dict[Hashable, StatusEvent] = {}
        self.final_events: dict[Hashable, list[StatusEvent]] = {}
        last_stage = log.pipeline.stages[-1].name
        for entry in log.entries:
            if isinstance(entry, Read):
                self._add_read(entry)
            elif isinstance(entry, StatusEvent):
                key = equality_key(entry.item_id)
                self.ids.setdefault(key, entry.item_id)
                self.last_events[key] = entry
                passed = entry.status in ("completed", "skipped") and entry.stage == last_stage
                if passed or entry.status == "failed":
                    self.final_events.setdefault(key, []).append(entry)

    def _add_read(self, read: Read) -> None:
        key = equality_key(read.item_id)
        other = self.reads.setdefault(key, read)
        if other is not read:
            raise ValueError(
                f"assert_promises() tells items apart by their ids, but numbers "
                f"{other.sequence_id} and {read.sequence_id} of the input both have the id "
                f"{short_repr(read.item_id)}. Give each item its own id: Item(value, id=…)."
            )
        self.ids[key] = read.item_id

    def check_outcomes(self, complete: bool) -> None:
        """Check that each item has one outcome; or, if not *complete*, at most one."""
        for key, item_id in self.ids.items():
            final = self.final_events.get(key, [])
            if self.source_recorded and key not in self.reads:
                raise_violation(
                    P1,
                    self.log,
                    item_id,
                    "it has events but was never read from a recorded source",
                    "Expected no events. Perhaps not all sources went through log.source(), or the "
                    "log covers a second run",
                )
            if len(final) > 1:
                raise_violation(
                    P1,
                    self.log,
                    item_id,
                    f"it has {len(final)} outcomes",
                    "Expected one. Perhaps two items have this id, or the log covers a second run",
                    final[-1].stage,
                )
            if complete and not final:
                last = self.last_events.get(key)
                raise_violation(
                    P1,
                    self.log,
                    item_id,
                    "it has no outcome",
                    "Expected a result or a failure. If the run was cancelled, write "
                    "assert_promises(…, complete=False)",
                    None if last is None else last.stage,
                )

    def check_results(self, results: Sequence[PipelineResult], complete: bool) -> None:
        """Check that the returned results and failures agree with the events."""
        successes, failures = split(results)
        outcomes: list[tuple[Hashable, Outcome, bool]] = [
            *((equality_key(result.id), result, True) for result in successes),
            *((equality_key(failure.item_id), failure, False) for failure in failures),
            *(
                (equality_key(result.id), result, False)
                for result in results
                if not result.is_success
            ),
        ]
        counts = Counter(key for key, _, _ in outcomes)
        for key, outcome, success in outcomes:
            item_id = outcome.id if isinstance(outcome, PipelineResult) else outcome.item_id
            word = "results" if success else "failures"
            if counts[key] > 1:
                observed = f"it was returned {counts[key]} times"
                raise_violation(P1, self.log, item_id, observed, "Expected it once")
            if key not in self.ids:
                observed = f"it is among the {word} but has no events"
                expected = "An item that was not read should have no outcome"
                raise_violation(P1, self.log, item_id, observed, expected)
            final = self.final_events.get(key)
            if final and (final[0].status != "failed") is not success:
                observed = f"it is among the {word}, but its final event is {final[0].status!r}"
                expected = "The results should agree with the events"
                raise_violation(P1, self.log, item_id, observed, expected, final[0].stage)
        if complete:
            self._check_missing(results, counts)

    def _check_missing(self, results: Sequence[PipelineResult], counts: Counter[Hashable]) -> None:
        collected = self.log.pipeline.collect_results or not isinstance(results, Results)
        for key, (final, *_) in self.final_events.items():
            if not counts[key] and (collected or final.status == "failed"):
                raise_violation(
                    P1,
                    self.log,
                    final.item_id,
                    f"its final event is {final.status!r}, but it was not returned",
                    "Expected it among the results or failures. Pass the object that run() "
                    "returned, or a list of all results of a stream; or write complete=False",
                    final.stage,
                )

    def check_order(self, results: Sequence[PipelineResult], ordered: bool) -> None:
        """Check that results have the numbers of their items and, if *ordered*, that they rise."""
        previous = None
        for result in results:
            read = self.reads.get(equality_key(result.id))
            number = result.sequence_id
            if read is not None and read.sequence_id != number:
                observed = f"its sequence_id is {number}"
                expected = f"It was read as number {read.sequence_id}"
                raise_violation(P2, self.log, result.id, observed, expected)
            if ordered and previous is not None and previous.sequence_id >= number:
                raise_violation(
                    P2,
                    self.log,
                    result.id,
                    f"number {number} of the input was returned after number "
                    f"{previous.sequence_id}",
                    "Results should be in input order. For a stream with ordered=False, take "
                    "them through log.sink()",
                )
            previous = result


def split(results: Iterable[PipelineResult]) -> tuple[list[PipelineResult], list[FailedItem]]:
    """
    Return the successful results, and the failures that `Results` keeps beside them.

    Raises:
        StageValidationError: One of *results* is not a `PipelineResult`.
    """
    checked = list(results)
    for result in checked:
        if not isinstance(result, PipelineResult):
            hint = "Pass the object that run() returned, or a list of the results of a stream."
            reject_argument("assert_promises()", "results", "results of a pipeline", result, hint)
    failures = results.failures if isinstance(results, Results) else []
    return [result for result in checked if result.is_success], failures
