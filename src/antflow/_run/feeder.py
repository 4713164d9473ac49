"""The sources of a run: `Feeder` reads one of them into a stage, `Feeds` holds all feeders."""

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
from .._backend.fairness import ITEMS_PER_YIELD
from .._backend.task_groups import raise_attribute
from .._events.event_bus import EventBus
from .._events.publishing import publish
from .._model.items import DEFAULT_PRIORITY
from .._model.record import Record
from .._state.lifecycle import Completion
from .._state.result_store import NO_OUTCOME
from .._workers.pool import Pool
from .._workers.result_sink import ResultSink


@define(eq=False)
class Feeder:
    """
    Reads one source into one stage.

    It runs in a loop task of the run, even if a caller of `feed()` waits for it. So if that caller
    is cancelled, an item that was read still reaches the stage.

    Args:
        source: Read lazily; closed at the end if it is a generator.
        pool: The pool of the stage.
        priority: The priority of each item.
        sink: If given, an item is read only when the window of this sink has room for it.

    Attributes:
        admitted: How many items were read so far.
        error: What the source raised. The items before that are still processed.
        paused: Set when the feeder first has to wait before it reads on, or has ended.
        done: Set when the feeder has ended, for any reason.
        detached: Whether no caller waits for it, so that the run must raise its error.
    """

    source: Iterable[Any] | AsyncIterable[Any]
    pool: Pool
    priority: float
    sink: ResultSink | None
    admitted: int = field(default=0, init=False)
    error: BaseException | None = field(default=None, init=False)
    paused: Event = field(factory=Event, init=False)
    done: Event = field(factory=Event, init=False)
    detached: bool = field(default=False, init=False)
    _scope: CancelScope = field(factory=CancelScope, init=False)
    _stopped: bool = field(default=False, init=False)
    # Whether an item was read and is not in the queue yet.
    _sending: bool = field(default=False, init=False)
    # Whether nothing restricts reading: there is no window, and `stop()` was not called.
    _unrestricted: bool = field(init=False)
    _completion: Completion = field(init=False)
    _bus: EventBus = field(init=False)
    _reserve: Callable[[object], None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        pool, services = self.pool, self.pool.services
        pool.queue.max_queued += 1
        self._unrestricted = self.sink is None
        self._completion = services.completion
        self._bus = services.bus
        self._reserve = services.state.results.reserve

    async def run(self) -> None:
        """Read the source to its end, or until `stop()`."""
        try:
            await self._read_and_close()
        except BaseException as error:
            if not is_item_failure(error):
                raise
            self.error = error
        finally:
            self.pool.queue.max_queued -= 1
            self.paused.set()
            self.done.set()

    def stop(self) -> bool:
        """
        Read no further; what was already read is processed.

        Returns:
            Whether the feeder ends at once, because it has no item that waits for room.
        """
        self._stopped = True
        self._unrestricted = False
        if not self._sending:
            self._scope.cancel()
        return not self._sending

    async def _read_and_close(self) -> None:
        # A generator may hold files and connections. It is closed outside the scope, so that its
        # cleanup may await after `stop()`.
        if isinstance(self.source, AsyncIterable):
            async_items = aiter(self.source)
            try:
                with self._scope:
                    if not await self._finish_sending(None):
                        await self._read_async(async_items)
            finally:
                if isinstance(async_items, AsyncGenerator):
                    await async_items.aclose()
        else:
            items = iter(self.source)
            try:
                with self._scope:
                    if not await self._finish_sending(None):
                        await self._read(items)
            finally:
                if isinstance(items, Generator):
                    items.close()

    async def _read_async(self, items: AsyncIterator[Any]) -> None:
        async for item in items:
            pending = self._admit(item)
            if pending is not None and await pending:
                return

    async def _read(self, items: Iterator[Any]) -> None:
        for item in items:
            pending = self._admit(item)
            if pending is not None and await pending:
                return

    def _admit(self, item: Any) -> Awaitable[bool] | None:
        """
        Count *item*, and put it into the queue of the stage.

        Returns:
            None to read on, else an awaitable that must be awaited first; its value says whether to
            stop. So an item that does not have to wait costs no coroutine.
        """
        pool, completion = self.pool, self._completion
        record = Record(completion.admitted, item)
        completion.admitted += 1
        self._reserve(NO_OUTCOME)
        pool.stage_state.arrived += 1
        self.admitted = admitted = self.admitted + 1
        if self.priority != DEFAULT_PRIORITY:
            record.priority = self.priority
        # Published before the item is sent, because a waiting worker may receive it before `send`
        # returns.
        if self._bus.status_subscriptions:
            pending = publish(self._bus, "queued", record, pool.name, None, time())
            if pending is not None:
                return self._finish_sending(_publish_and_send(pending, record, pool))
        inlet = pool.queue.inlet
        try:
            inlet.send_nowait(record)
        except WouldBlock:
            return self._finish_sending(inlet.send(record))
        if admitted % ITEMS_PER_YIELD and (self._unrestricted or self._enter_window()):
            return None
        return self._finish_sending(None)

    def _enter_window(self) -> bool:
        """Let the next item enter the window; return False if it is full or after `stop()`."""
        return not self._stopped and self.sink is not None and self.sink.enter()

    async def _finish_sending(self, pending: Awaitable[None] | None) -> bool:
        """
        Await *pending*, which sends an item; then wait until the next one may be read.

        Returns:
            Whether to stop reading.
        """
        if pending is not None:
            if self._scope.cancel_called:
                # The source yielded one more item at the moment of `stop()`.
                self.pool.queue.max_queued += 1
                self.pool.services.tasks.start(self._send_last(pending))
                return True
            self._sending = True
            self.paused.set()
            await pending
            self._sending = False
        if self.admitted and not self.admitted % ITEMS_PER_YIELD:
            await checkpoint()
        if self.sink is not None and not self._stopped:
            await self.sink.wait_to_enter()
        return self._stopped

    async def _send_last(self, pending: Awaitable[None]) -> None:
        try:
            await pending
        finally:
            self.pool.queue.max_queued -= 1


async def _publish_and_send(pending: Awaitable[None], record: Record, pool: Pool) -> None:
    await pending
    try:
        pool.queue.inlet.send_nowait(record)
    except WouldBlock:
        await pool.queue.inlet.send(record)


class Feeds:
    """
    The feeders of one run.

    Attributes:
        opened: Set when the pools have been built, or the run has ended.
    """

    def __init__(self, completion: Completion, sink: ResultSink | None) -> None:
        self.opened = Event()
        self._completion = completion
        self._window = None if sink is None or sink.window is None else sink
        self._pools: list[Pool] = []
        self._feeders: set[Feeder] = set()
        self._source_error: BaseException | None = None

    def open(self, pools: list[Pool]) -> None:
        """Let feeders send to *pools* from now on."""
        self._pools = pools
        self.opened.set()

    def add(
        self, source: Iterable[Any] | AsyncIterable[Any], target: int, priority: float
    ) -> Feeder:
        """Return a new feeder, for `run()`, of *source* into the stage with the index *target*."""
        if priority != DEFAULT_PRIORITY:
            for pool in self._pools:
                pool.use_priorities()
        feeder = Feeder(source, self._pools[target], priority, self._window)
        self._feeders.add(feeder)
        self._completion.feeders += 1
        return feeder

    async def wait_for(self, feeder: Feeder, *, to_end: bool) -> int:
        """
        Wait until *feeder* has read its source or, unless *to_end*, until it waits for room.

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
        finally:
            if feeder.detached and self._source_error is None:
                self._source_error, feeder.error = feeder.error, None
            self._feeders.discard(feeder)
            self._completion.feeders -= 1
            self._completion.check_idle()

    def stop(self) -> None:
        """Read no further."""
        for feeder in self._feeders:
            feeder.stop()

    def close(self) -> None:
        """Drop the references to the run, which has ended."""
        self._pools = []
        self.opened.set()

    def raise_source_error(self) -> None:
        """Raise, once, what a source raised that no caller of `feed()` waited for."""
        if self._source_error is not None:
            raise_attribute(self, "_source_error")
