"""The state of one stage during a run: its workers and its counters."""

from __future__ import annotations

from attrs import define, field

from .._definition.stage import Stage
from .worker import Worker, worker_name


@define(eq=False)
class StageState:
    """
    The workers of one stage that were ever started, and the counters of the stage.

    Items that were processed or failed are counted by the workers only; the numbers of the stage
    are sums over the workers.

    Attributes:
        stage: The definition of the stage.
        workers: The workers that were started; number n is at index n.
        arrived: How many items have reached the stage, from a source or from the previous stage.
        skipped: How many of the items that left the stage with success were skipped.
    """

    stage: Stage
    workers: list[Worker] = field(factory=list, init=False)
    arrived: int = field(default=0, init=False)
    skipped: int = field(default=0, init=False)

    @property
    def passed(self) -> int:
        """How many items have left the stage with success, including skipped ones."""
        return sum(worker.processed for worker in self.workers)

    @property
    def failed(self) -> int:
        """How many items have failed at the stage for good."""
        return sum(worker.failed for worker in self.workers)

    @property
    def in_progress(self) -> int:
        """How many items are being processed by a worker."""
        return sum(worker.record is not None for worker in self.workers)

    def worker_names(self) -> list[str]:
        """Return the names of all workers of the stage, whether started or not."""
        return [worker_name(self.stage.name, number) for number in range(self.stage.workers)]
