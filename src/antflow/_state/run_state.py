"""The state of one run: its stages, its results and failures, and its phase."""

from __future__ import annotations

from attrs import define, field

from .._model.results import FailedItem
from .lifecycle import EndReason, Lifecycle, Phase
from .result_store import ResultStore
from .stage_state import StageState


@define(eq=False)
class RunState:
    """
    The state of one run, or of a pipeline that has never run.

    Invariant: each item that was admitted is pending or in progress at exactly one stage, or has
    failed, or has left the last stage. Each transition is made without an await in between, so that
    callbacks and other loop tasks always see consistent counts.

    Attributes:
        stages: The state of each stage, in order.
        results: Results and failures so far.
        max_failures: How many items may fail without stopping the run; None for any number.
        lifecycle: The phase of the run.
    """

    stages: tuple[StageState, ...]
    results: ResultStore = field(factory=ResultStore)
    max_failures: int | None = None
    lifecycle: Lifecycle = field(factory=Lifecycle, init=False)

    def fail(self, failed: FailedItem) -> None:
        """Record a failure; if there are too many, let no worker take another item."""
        self.results.fail(failed)
        if self.max_failures is not None and len(self.results.failures) > self.max_failures:
            self.lifecycle.advance(Phase.CANCELLING, EndReason.TOO_MANY_FAILURES)
