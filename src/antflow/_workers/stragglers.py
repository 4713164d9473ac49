"""Who goes on after the run was cancelled: counted as it is, and named if it takes long."""

from __future__ import annotations

from anyio import Event, move_on_after

from .._events.event_bus import logger
from .._state.worker import Worker

# After so many seconds a cancelled run says whom it waits for.
PATIENCE = 10
# So many are named.
NAMED = 5


class Stragglers:
    """The workers of one run that have a task of their own at present."""

    def __init__(self) -> None:
        self._working: set[Worker] = set()
        # Set when the last has gone, if somebody watches.
        self._gone: Event | None = None

    def begin(self, worker: Worker) -> None:
        """Take note that *worker* has a task."""
        self._working.add(worker)

    def end(self, worker: Worker) -> None:
        """Take note that it has none any more."""
        self._working.discard(worker)
        if self._gone is not None and not self._working:
            self._gone.set()

    async def watch(self) -> None:
        """Wait, in a cancelled run, until all have gone, or say who has not."""
        if not self._working:
            return
        self._gone = Event()
        with move_on_after(PATIENCE, shield=True) as scope:
            await self._gone.wait()
        if scope.cancelled_caught:
            workers = sorted(self._working, key=lambda worker: (worker.stage, worker.number))
            more = len(workers) - NAMED
            logger.warning(
                "the run was cancelled %s s ago, and waits for %s%s. A task ends late if it "
                "swallows its cancellation (Pipeline(cancel_grace=…) ends it), shields itself from "
                "it, or is a plain function, whose thread cannot be stopped.",
                PATIENCE,
                ", ".join(worker.describe_position() for worker in workers[:NAMED]),
                f", and {more} more" if more > 0 else "",
            )
