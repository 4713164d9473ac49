"""The sources that one run reads."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any

from anyio import CancelScope, Event

from .._backend.task_groups import raise_attribute
from .._model.items import DEFAULT_PRIORITY
from .._state.lifecycle import Completion
from .._workers.pool import Pool
from .._workers.result_sink import ResultSink
from .feeder import Feeder


class Feeds:
    """
    The sources that one run reads.

    Attributes:
        errors: What sources raised that no caller of `feed()` waited for.
        opened: Set when the pools are there, or the run has ended.
    """

    def __init__(self, completion: Completion, sink: ResultSink | None) -> None:
        self.opened = Event()
        self._completion = completion
        self._window = None if sink is None or sink.window is None else sink
        self._pools: list[Pool] = []
        self._feeders: set[Feeder] = set()
        self.errors: list[BaseException] = []

    def open(self, pools: list[Pool]) -> None:
        """Feed into *pools* from now on."""
        self._pools = pools
        self.opened.set()

    def add(
        self, source: Iterable[Any] | AsyncIterable[Any], target: int, priority: float
    ) -> Feeder:
        """Return a feeder of *source* into the stage with the index *target*; `run()` it."""
        if priority != DEFAULT_PRIORITY:
            for pool in self._pools:
                pool.use_priorities()
        feeder = Feeder(source, self._pools[target], priority, self._window)
        self._feeders.add(feeder)
        self._completion.feeders += 1
        return feeder

    async def wait_for(self, feeder: Feeder, *, to_end: bool) -> int:
        """
        Wait until *feeder* has read its source, or, unless *to_end*, until it waits for room.

        Returns:
            How many items were admitted so far.

        Raises:
            Exception: What the source raised.
        """
        try:
            await (feeder.done if to_end else feeder.paused).wait()
        except BaseException:
            if feeder.stop():
                with CancelScope(shield=True):
                    await feeder.done.wait()
            raise
        feeder.detached = not feeder.done.is_set()
        if feeder.error is not None:
            raise_attribute(feeder, "error")
        return feeder.admitted

    async def run(self, feeder: Feeder) -> None:
        """Let *feeder* read its source."""
        try:
            await feeder.run()
        except BaseException:
            self._completion.cut_sources += 1
            raise
        finally:
            if feeder.detached and feeder.error is not None:
                self.errors.append(feeder.error)
                feeder.error = None
            self._feeders.discard(feeder)
            self._completion.feeders -= 1
            self._completion.check_idle()

    def stop(self) -> None:
        """Read no further."""
        for feeder in self._feeders:
            feeder.stop()

    def note_cancellation(self) -> None:
        """The run is being cancelled, but sources may be shielded from that."""
        for feeder in self._feeders:
            feeder.read_no_further()

    def close(self) -> None:
        """The run has ended: drop what refers to it."""
        self._pools = []
        self.opened.set()
