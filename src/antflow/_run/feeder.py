"""How a source gets into a run: one feeder reads it, as far as there is room."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from time import time
from typing import Any

from anyio import CancelScope, Event, WouldBlock
from anyio.lowlevel import checkpoint
from attrs import define, field

from .._backend.cancellation import is_item_failure
from .._events.publishing import publish
from .._model.items import DEFAULT_PRIORITY, Record
from .._workers.pool import ITEMS_PER_TURN, Pool
from .._workers.result_sink import ResultSink


@define(eq=False)
class Feeder:
    """
    Reads one source into one stage.

    It runs as a task of the run also if somebody waits for it elsewhere: so whatever ends that
    wait, an item that was read is never torn from its way into the stage.

    Args:
        source: Read lazily; closed at the end if it is a generator.
        pool: The stage.
        priority: Goes with each item.
        sink: If given, there must be a place in its window for an item before it is read.
        start: Starts a task of the run.

    Attributes:
        admitted: How many items it has read so far.
        error: What the source raised. What it gave before is on its way all the same.
        paused: Set once it had to wait for room, or has ended.
        done: Set when it has ended, for whatever reason.
        orphaned: Whether nobody waits for it, so that the run must tell of its error.
    """

    source: Iterable[Any] | AsyncIterable[Any]
    pool: Pool
    priority: float
    sink: ResultSink | None
    start: Callable[..., None]
    admitted: int = field(default=0, init=False)
    error: BaseException | None = field(default=None, init=False)
    paused: Event = field(factory=Event, init=False)
    done: Event = field(factory=Event, init=False)
    detached: bool = field(default=False, init=False)
    _scope: CancelScope = field(factory=CancelScope, init=False)
    _stopped: bool = field(default=False, init=False)
    # Whether an item is in hand, for which there is no room yet.
    _sending: bool = field(default=False, init=False)
    # Whether its items have what only some have: a priority, a stage to begin with.
    _is_special: bool = field(init=False)
    # Whether nothing is asked before an item is read: no place, and not whether it is to stop.
    _is_free: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.pool.room += 1
        self._is_special = (
            self.priority != DEFAULT_PRIORITY
            or self.pool.stage_state is not self.pool.state.stages[0]
        )
        self._is_free = self.sink is None

    async def run(self) -> None:
        """Read the source to its end, or until `stop()`."""
        try:
            await self._read_and_close()
        except BaseException as error:
            if not is_item_failure(error):
                raise
            self.error = error
        finally:
            self.pool.room -= 1
            self.paused.set()
            self.done.set()

    def stop(self) -> bool:
        """
        Read no further; what was read already goes on.

        Returns:
            Whether it ends at once, since no item of it waits for room.
        """
        self._stopped = True
        self._is_free = False
        if not self._sending:
            self._scope.cancel()
        return not self._sending

    async def _read_and_close(self) -> None:
        # A generator may hold files and connections open. It is closed outside of the scope, so
        # that after `stop()` it may take its time.
        if isinstance(self.source, AsyncIterable):
            async_items = aiter(self.source)
            try:
                with self._scope:
                    await self._read_async(async_items)
            finally:
                if isinstance(async_items, AsyncGenerator):
                    await async_items.aclose()
        else:
            items = iter(self.source)
            try:
                with self._scope:
                    await self._read(items)
            finally:
                if isinstance(items, Generator):
                    items.close()

    async def _read_async(self, items: AsyncIterator[Any]) -> None:
        if await self._get_ready(None):
            return
        async for item in items:
            pending = self._admit(item)
            if pending is not None and await pending:
                return

    async def _read(self, items: Iterator[Any]) -> None:
        if await self._get_ready(None):
            return
        for item in items:
            pending = self._admit(item)
            if pending is not None and await pending:
                return

    def _admit(self, item: Any) -> Awaitable[bool] | None:
        """
        Take *item* into the books and into the stage.

        Returns:
            None to read on, else what must be awaited before: it says whether to stop. An item that
            need not wait thus costs no coroutine.
        """
        pool = self.pool
        record = pool.state.admit(item)
        self.admitted = admitted = self.admitted + 1
        if self._is_special:
            self._prepare(record)
        # In this order: a waiting worker may have the item before `send` returns.
        if pool.bus.status_subscriptions:
            pending = publish("queued", record, pool, None, time())
            if pending is not None:
                return self._get_ready(_finish_and_send(pending, record, pool))
        try:
            pool.entrance.send_nowait(record)
        except WouldBlock:
            return self._get_ready(pool.entrance.send(record))
        if admitted % ITEMS_PER_TURN and (self._is_free or self._may_go_on()):
            return None
        return self._get_ready(None)

    def _prepare(self, record: Record) -> None:
        """Give *record* its priority, and say where it comes in."""
        if self.priority != DEFAULT_PRIORITY:
            record.priority = self.priority
        if self.pool.stage_state is not self.pool.state.stages[0]:
            self.pool.stage_state.injected += 1

    def _may_go_on(self) -> bool:
        """Take a place for the next item, if there is one and it is to be read."""
        return not self._stopped and self.sink is not None and self.sink.enter()

    async def _get_ready(self, pending: Awaitable[None] | None) -> bool:
        """Wait for what must be waited for until the next item is read; say whether to stop."""
        if pending is not None:
            if self._scope.cancel_called:
                # The source gave one more item in the moment of the stop.
                self.pool.room += 1
                self.start(self._send_last, pending)
                return True
            self._sending = True
            self.paused.set()
            await pending
            self._sending = False
        if self.admitted and not self.admitted % ITEMS_PER_TURN:
            await checkpoint()
        if self.sink is not None and not self._stopped:
            await self.sink.wait_to_enter()
        return self._stopped

    async def _send_last(self, pending: Awaitable[None]) -> None:
        try:
            await pending
        finally:
            self.pool.room -= 1


async def _finish_and_send(pending: Awaitable[None], record: Record, pool: Pool) -> None:
    await pending
    try:
        pool.entrance.send_nowait(record)
    except WouldBlock:
        await pool.entrance.send(record)
