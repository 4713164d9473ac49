"""What changes at one stage during a run: its workers and its counters."""

from __future__ import annotations

from attrs import define, field

from .._definition.stage import Stage
from .worker import Worker, worker_name


@define(eq=False)
class StageState:
    """
    The workers of one stage that were ever started, and the items that reached it.

    The counters of the workers are the only ones for what was processed and failed; the figures of
    the stage are sums over them.

    Attributes:
        workers: Worker number n is at index n.
        arrived: How many items have reached the stage, from a source or from a stage before.
        skipped: How many of those that left it with success were skipped.
    """

    stage: Stage
    workers: list[Worker] = field(factory=list, init=False)
    arrived: int = field(default=0, init=False)
    skipped: int = field(default=0, init=False)

    @property
    def passed(self) -> int:
        """How many items have left the stage with success, skipped ones included."""
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
        """Return the names of all workers that the stage may have."""
        return [worker_name(self.stage.name, number) for number in range(self.stage.workers)]
