"""`ResultStore`: the results and failures of a run."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from threading import RLock
from typing import Any

from attrs import define, field

from .._model.record import Record
from .._model.results import FailedItem, PipelineResult, Results, new_result
from .._model.snapshots import ErrorSummary

# Held while new results are stored.
_results_lock = RLock()
# The placeholder of an item that is in progress or has failed.
NO_OUTCOME = object()


def _ignore(outcome: object) -> None:
    """No-op."""


@define(eq=False)
class ResultStore:
    """
    The results and failures of one run.

    Results are made when they are read. Until then the store keeps bare values, because each result
    would be one more object for the garbage collector to traverse.

    Attributes:
        collects: Whether values are kept.
        keep_failures: How many failures are kept, always the newest; None for all. A stream keeps
            none and hands them over instead.
        keep_frames: Whether the exceptions of failed items keep the local variables of their
            frames.
        failed: How many items have failed.
        failures: The failures that are kept, in the order in which they occurred.
        reserve: ``reserve(NO_OUTCOME)`` adds an entry for the next item. It is the bound method of
            a list, because it is called for each item.
    """

    collects: bool = True
    keep_failures: int | None = None
    keep_frames: bool = False
    failed: int = field(default=0, init=False)
    failures: deque[FailedItem] = field(init=False)
    reserve: Callable[[object], None] = field(init=False)
    _errors_by_type: Counter[str] = field(factory=Counter, init=False)
    _errors_by_stage: Counter[str] = field(factory=Counter, init=False)
    # By sequence number: the bare value, or an `IdentifiedValue` for an item with an id or metadata
    # of its own.
    _outcomes: list[Any] = field(factory=list, init=False)
    # By sequence number, the results that were made. The list is replaced and never mutated.
    _results: list[PipelineResult | None] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.failures = deque(maxlen=self.keep_failures)
        self.reserve = self._outcomes.append if self.collects else _ignore

    def keep(self, record: Record) -> None:
        """Keep the value of *record*, which has left the last stage."""
        if self.collects:
            self._outcomes[record.sequence_id] = (
                record.value if record.has_default_id else record.identified()
            )

    def fail(self, failed: FailedItem) -> None:
        """Count *failed* and keep it; if that is one too many, drop the oldest."""
        self.failed += 1
        self._errors_by_type[failed.error_type] += 1
        self._errors_by_stage[failed.stage] += 1
        self.failures.append(failed)

    def results(self) -> Results:
        """Return the results so far, in input order; the same objects each time."""
        outcomes, cached = self._outcomes, self._results
        # A new list, because another thread may read the results while the run continues.
        results = cached + [
            None if outcome is NO_OUTCOME else new_result(number, outcome)
            for number, outcome in enumerate(outcomes[len(cached) :], len(cached))
        ]
        for number, result in enumerate(cached):
            if result is None and outcomes[number] is not NO_OUTCOME:
                results[number] = new_result(number, outcomes[number])
        with _results_lock:
            if self._results is cached:
                self._results = results
                return Results(filter(None, results), self.failures)
        # Another thread, or a signal handler, has stored its results meanwhile: use those.
        return self.results()

    def error_summary(self) -> ErrorSummary:
        """Return counts of the failures."""
        # Copies, because another thread may ask while the run goes on.
        by_type = Counter(dict.copy(self._errors_by_type))
        by_stage = Counter(dict.copy(self._errors_by_stage))
        return ErrorSummary(
            sum(by_type.values()),
            dict(by_type.most_common()),
            dict(by_stage.most_common()),
            list(self.failures),
        )
