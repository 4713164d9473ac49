"""Sends the items of a feeder for which there is no room."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from contextlib import suppress

from anyio import Event, WouldBlock
from attrs import define, field

from .._events.publishing import announce
from .._model.record import Record
from .._workers.pool import Pool


@define(eq=False)
class Outbox:
    """
    Sends the items of one feeder to one stage, in order.

    Args:
        pool: The pool of the stage.

    Attributes:
        has_own_task: Whether a loop task of the run sends them, so that the wait of the feeder may
            be cancelled without loss. Else the feeder itself does.
        unsent: Items that were admitted and not sent, each with what comes before that: whether to
            publish ``queued``, or handlers of that event to wait for.
    """

    pool: Pool
    has_own_task: bool = field(default=True, init=False)
    unsent: deque[tuple[Record, bool, Awaitable[None] | None]] = field(factory=deque, init=False)
    # Whether the loop task has begun.
    _runs: bool = field(default=False, init=False)
    # Set once nothing is unsent.
    _all_sent: Event = field(factory=Event, init=False)

    async def send(
        self, record: Record, must_publish: bool, handlers: Awaitable[None] | None
    ) -> None:
        """Send *record*, and wait until all items are sent."""
        self.unsent.append((record, must_publish, handlers))
        if not self.has_own_task:
            await self._send_all()
        else:
            if len(self.unsent) == 1:
                self._all_sent = Event()
                self.pool.services.tasks.start(self._send_all())
            await self.wait_until_sent()

    async def wait_until_sent(self) -> None:
        """Wait until nothing is unsent."""
        while self.unsent:
            await self._all_sent.wait()

    async def drop(self) -> None:
        """The run is being cancelled: forget what no loop task has begun to send."""
        if not self._runs:
            unsent = [*self.unsent]
            self.unsent.clear()
            for _, _, handlers in unsent:
                if handlers is not None:
                    # They are cancelled at their first wait; the caller raises its own error.
                    with suppress(BaseException):
                        await handlers

    async def _send_all(self) -> None:
        self._runs = True
        services, queue = self.pool.services, self.pool.queue
        services.token.enter()
        try:
            while self.unsent:
                record, must_publish, handlers = self.unsent[0]
                if handlers is not None:
                    await handlers
                elif must_publish and services.bus.status_subscriptions:
                    await announce(services.bus, "queued", record, self.pool.name, None)
                try:
                    queue.inlet.send_nowait(record)
                except WouldBlock:
                    await queue.inlet.send(record)
                self.unsent.popleft()
        finally:
            self._runs = False
            # If this was cancelled, so is the run; the feeder may be shielded from that.
            self.unsent.clear()
            self._all_sent.set()
