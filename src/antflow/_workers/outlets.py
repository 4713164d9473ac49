"""Where an item goes when it leaves a stage: the next stage, the results, or a stream."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from anyio import WouldBlock
from attrs import frozen

from .._events.event_bus import EventBus
from .._events.publishing import announce
from .._model.record import Record
from .._model.results import FailedItem
from .._state.lifecycle import Completion
from .._state.result_store import ResultStore
from .._state.stage_state import StageState
from .queues import StageQueue
from .result_sink import ResultSink
from .scaling import Scaling


async def wait_for_room(scaling: Scaling, pending: Awaitable[None]) -> None:
    """Await *pending*, which hands over a finished item, and count the worker as blocked."""
    scaling.became_blocked()
    try:
        await pending
    finally:
        scaling.became_unblocked()


class Outlet(Protocol):
    """
    Where the items go that leave a stage with success.

    The fast path of the worker loop does the same inline.
    """

    def commit(self, record: Record) -> None:
        """Count or store *record* at its destination, before any notification that it has left."""

    async def hand_over(self, record: Record, scaling: Scaling) -> None:
        """Hand *record* over, waiting for room; *scaling* is that of the stage it has left."""


class FinalOutlet(Outlet, Protocol):
    """The outlet of the last stage, which also takes the failures of all stages."""

    async def hand_over_failure(self, record: Record, failed: FailedItem) -> None:
        """Finish *record*, which failed as *failed* says."""


@frozen(eq=False)
class NextStage:
    """The queue of the next stage."""

    queue: StageQueue
    stage_state: StageState
    name: str
    bus: EventBus

    def commit(self, record: Record) -> None:
        """As `Outlet` says."""
        self.stage_state.arrived += 1

    async def hand_over(self, record: Record, scaling: Scaling) -> None:
        """As `Outlet` says."""
        if self.bus.status_subscriptions:
            await announce(self.bus, "queued", record, self.name, None)
        try:
            self.queue.inlet.send_nowait(record)
        except WouldBlock:
            await wait_for_room(scaling, self.queue.inlet.send(record))


@frozen(eq=False)
class ResultsOutlet:
    """The results of a run, which are kept until they are read."""

    results: ResultStore
    completion: Completion

    def commit(self, record: Record) -> None:
        """As `Outlet` says."""
        self.results.keep(record)

    async def hand_over(self, record: Record, scaling: Scaling) -> None:
        """As `Outlet` says."""
        self.completion.settle()

    async def hand_over_failure(self, record: Record, failed: FailedItem) -> None:
        """As `FinalOutlet` says; the failure is already in the state of the run."""
        self.completion.settle()


@frozen(eq=False)
class StreamOutlet:
    """The consumer of a `ResultStream`."""

    sink: ResultSink
    completion: Completion

    def commit(self, record: Record) -> None:
        """As `Outlet` says."""

    async def hand_over(self, record: Record, scaling: Scaling) -> None:
        """As `Outlet` says."""
        pending = self.sink.put(record.result())
        if pending is not None:
            await wait_for_room(scaling, pending)
        self.completion.settle()

    async def hand_over_failure(self, record: Record, failed: FailedItem) -> None:
        """As `FinalOutlet` says."""
        pending = self.sink.put(record.result(failed))
        if pending is not None:
            await pending
        self.completion.settle()
