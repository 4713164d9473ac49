"""What came out of a run so far: results by sequence number, and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import RLock
from typing import Any

from attrs import define, field

from .._model.record import Record
from .._model.results import FailedItem, PipelineResult, Results, new_result
from .._model.snapshots import ErrorSummary

# Held while the results that were made are stored.
_results_lock = RLock()
# Stands for an item that is in progress or failed.
NO_OUTCOME = object()


def _ignore(outcome: object) -> None:
    """No-op."""


@define(eq=False)
class ResultStore:
    """
    The results and failures of one run.

    Results are made when they are asked for. Until then the store keeps bare values, because each
    result would be one more object for the garbage collector to traverse.

    Attributes:
        collects: Whether values are kept.
        keeps_failures: Whether failures are kept. A stream hands them over instead.
        failures: In the order in which the items failed.
        reserve: ``reserve(NO_OUTCOME)`` makes room for the outcome of the next item. It is the
            method of a list, because it is called for each item.
    """

    collects: bool = True
    keeps_failures: bool = True
    failures: list[FailedItem] = field(factory=list, init=False)
    reserve: Callable[[object], None] = field(init=False)
    _errors_by_type: Counter[str] = field(factory=Counter, init=False)
    _errors_by_stage: Counter[str] = field(factory=Counter, init=False)
    # By sequence number: the bare value, or an `IdentifiedValue` for an item that brought an id or
    # metadata.
    _outcomes: list[Any] = field(factory=list, init=False)
    # Those that were made. The list is replaced, and never changed.
    _results: list[PipelineResult | None] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.reserve = self._outcomes.append if self.collects else _ignore

    def keep(self, record: Record) -> None:
        """Keep the value of *record*, which has left the last stage."""
        if self.collects:
            self._outcomes[record.sequence_id] = (
                record.value if record.has_default_id else record.identified()
            )

    def fail(self, failed: FailedItem) -> None:
        """Count *failed*, and keep it."""
        self._errors_by_type[failed.error_type] += 1
        self._errors_by_stage[failed.stage] += 1
        if self.keeps_failures:
            self.failures.append(failed)

    def results(self) -> Results:
        """Return the results so far, in input order: the same objects each time."""
        outcomes, known = self._outcomes, self._results
        # Lists of its own: another thread may look while the run goes on.
        results = known + [
            None if outcome is NO_OUTCOME else new_result(number, outcome)
            for number, outcome in enumerate(outcomes[len(known) :], len(known))
        ]
        for number, made in enumerate(known):
            if made is None and outcomes[number] is not NO_OUTCOME:
                results[number] = new_result(number, outcomes[number])
        with _results_lock:
            if self._results is known:
                self._results = results
                return Results(filter(None, results), self.failures)
        # Another thread, or a signal handler, has stored its results meanwhile: use those.
        return self.results()

    def error_summary(self) -> ErrorSummary:
        """Return counts of the failures."""
        return ErrorSummary(
            sum(self._errors_by_type.values()),
            dict(self._errors_by_type.most_common()),
            dict(self._errors_by_stage.most_common()),
            list(self.failures),
        )
