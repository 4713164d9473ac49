"""Waits for the workers that still run after a cancellation, and logs what they are doing."""

from __future__ import annotations

from anyio import Event, move_on_after
from attrs import define, field

from .._events.event_bus import logger
from .._state.worker import Worker

# Seconds after which a cancelled run logs what it waits for.
PATIENCE = 10
# How many workers the message names.
NAMED = 5


@define(eq=False)
class Stragglers:
    """
    The workers of one run that have a loop task.

    Attributes:
        running: Each worker adds itself when its loop task begins, and removes itself at the end.
    """

    running: set[Worker] = field(factory=set, init=False)
    # Set when the last worker has ended; None before `watch()`.
    _gone: Event | None = field(default=None, init=False)

    def all_gone(self) -> None:
        """Note that the last worker of a cancelled run has ended."""
        if self._gone is not None:
            self._gone.set()

    async def watch(self) -> None:
        """Wait, in a cancelled run, until all workers have ended; log if that takes long."""
        if not self.running:
            return
        self._gone = Event()
        with move_on_after(PATIENCE, shield=True) as scope:
            await self._gone.wait()
        if scope.cancelled_caught:
            workers = sorted(self.running, key=lambda worker: (worker.stage, worker.number))
            more = len(workers) - NAMED
            logger.warning(
                "the run was cancelled %s s ago, and waits for %s%s. A task ends late if it "
                "swallows its cancellation (Pipeline(cancel_grace=…) ends it), shields itself from "
                "it, or is a plain function, whose thread cannot be stopped.",
                PATIENCE,
                ", ".join(worker.describe_position() for worker in workers[:NAMED]),
                f", and {more} more" if more > 0 else "",
            )
