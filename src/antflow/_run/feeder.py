"""Reads one source into a stage, as far as there is room."""

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
from itertools import count
from time import time
from typing import Any, NoReturn, cast

from anyio import CancelScope, Event, WouldBlock, get_cancelled_exc_class
from anyio.lowlevel import checkpoint
from attrs import define, field

from .._backend.cancellation import is_item_failure, stray_cancellation
from .._backend.fairness import ITEMS_PER_YIELD
from .._backend.task_groups import aclose
from .._events.event_bus import EventBus
from .._events.publishing import publish
from .._model.errors import PipelineError
from .._model.items import DEFAULT_PRIORITY
from .._model.record import Record
from .._state.lifecycle import Completion
from .._state.result_store import NO_OUTCOME
from .._workers.pool import Pool
from .._workers.result_sink import ResultSink
from .outbox import Outbox

_PLAIN_ITERABLES: tuple[Iterable[Any], ...] = ([], (), range(0), {}, {}.values(), set(), count())
# These iterators run no code of the user, and so hold no scope open.
_PLAIN_ITERATORS = frozenset(type(iter(iterable)) for iterable in _PLAIN_ITERABLES)


@define(eq=False)
class Feeder:
    """
    Reads one source into one stage.

    It runs in a loop task of the run, even if a caller of `feed()` waits for it. So if that caller
    is cancelled, an item that was read still reaches the stage.

    A generator may hold scopes, limits and task groups open across its yields. They belong to the
    loop task that runs it, and may be cancelled while the feeder waits for room. So the source is
    started, read and closed in this loop task; items for which there is no room are sent by another
    one; and a cancellation that is not that of the run is raised at the ``yield`` of the generator.

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
    # What sends the items for which there is no room.
    _outbox: Outbox = field(init=False)
    _unsent: Any = field(init=False)
    # Whether the source runs, and not the feeder; and whether the window has its next item then.
    _in_source: bool = field(default=False, init=False)
    _has_entered: bool = field(default=False, init=False)
    # Whether the source may hold scopes open, and the cancellation of one of them.
    _has_scopes: bool = field(default=True, init=False)
    _cancellation: BaseException | None = field(default=None, init=False)
    # Whether the next item is read without a question: there is no window, and no stop.
    _unrestricted: bool = field(init=False)
    _completion: Completion = field(init=False)
    _bus: EventBus = field(init=False)
    _reserve: Callable[[object], None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        services = self.pool.services
        self.pool.queue.max_queued += 1
        self._unrestricted = self.sink is None
        self._outbox = Outbox(self.pool)
        self._unsent = self._outbox.unsent
        self._completion = services.completion
        self._bus = services.bus
        self._reserve = services.state.results.reserve

    async def run(self) -> None:
        """Read the source to its end, or until `stop()`."""
        self.pool.services.token.enter()
        try:
            try:
                await self._read_and_close()
            finally:
                if self._outbox.unsent:
                    await self._outbox.wait_until_sent()
        except BaseException as error:
            await self._outbox.drop()
            if not is_item_failure(error):
                raise
            self.error = error if isinstance(error, Exception) else stray_cancellation(error)
        finally:
            if self.sink is not None and self._in_source and self._has_entered:
                self.sink.leave()
            self.pool.queue.max_queued -= 1
            self.paused.set()
            self.done.set()

    def read_no_further(self) -> None:
        """Stop as soon as the source yields; all that a source can be told that is shielded."""
        self._stopped = True
        self._unrestricted = False
        if self.sink is not None:
            self.sink.wake_feeders()

    def stop(self) -> bool:
        """Read no further; return whether the feeder ends at once, as no item waits for room."""
        self.read_no_further()
        if self._in_source:
            self._scope.cancel()
        return not self._outbox.unsent

    async def _read_and_close(self) -> None:
        # A generator is closed inside this scope, because its own scopes were entered here.
        with self._scope:
            if isinstance(self.source, AsyncIterable):
                async_items = aiter(self.source)
                try:
                    await self._read_async(async_items)
                finally:
                    if hasattr(async_items, "aclose"):
                        await aclose(async_items)
            else:
                items = iter(self.source)
                self._has_scopes = self._outbox.has_own_task = type(items) not in _PLAIN_ITERATORS
                try:
                    await self._read(items)
                finally:
                    if isinstance(items, Generator):
                        items.close()

    async def _read_async(self, items: AsyncIterator[Any]) -> None:
        throw: Any = items.athrow if isinstance(items, AsyncGenerator) else _cannot_throw
        go_on = await self._wait(self._prepare_next())
        while go_on:
            if self._cancellation is not None:
                try:
                    item = await throw(self._take_cancellation())
                except StopAsyncIteration:
                    return
                go_on = await self._wait(self._admit_reply(item))
                continue
            async for item in items:
                pending = self._admit(item)
                if pending is not None:
                    go_on = await self._wait(pending)
                    if self._cancellation is not None or not go_on:
                        break
            else:
                return

    async def _read(self, items: Iterator[Any]) -> None:
        throw: Any = items.throw if isinstance(items, Generator) else _cannot_throw
        go_on = await self._wait(self._prepare_next())
        while go_on:
            if self._cancellation is not None:
                try:
                    item = throw(self._take_cancellation())
                except StopIteration:
                    return
                go_on = await self._wait(self._admit_reply(item))
                continue
            for item in items:
                pending = self._admit(item)
                if pending is not None:
                    go_on = await self._wait(pending)
                    if self._cancellation is not None or not go_on:
                        break
            else:
                return

    async def _wait(self, pending: Awaitable[bool]) -> bool:
        """
        Await *pending*, and return what it does: whether to read on.

        A cancellation that is caused by a scope of the source is kept, to be thrown into it.
        """
        self._in_source = False
        try:
            return await pending
        except get_cancelled_exc_class() as error:
            is_stopping = self.pool.services.state.lifecycle.is_stopping
            if is_stopping or self._scope.cancel_called or not self._has_scopes:
                raise
            self._cancellation = error
            self._has_entered = False
            return True
        finally:
            self._in_source = True

    def _take_cancellation(self) -> BaseException:
        # No variable of a frame in its traceback may refer to it.
        try:
            return cast(BaseException, self._cancellation)
        finally:
            self._cancellation = None

    def _admit(self, item: Any) -> Awaitable[bool] | None:
        """
        Count *item*, and put it into the queue of the stage.

        Returns:
            None to read on, else what must be awaited first: it returns whether to read on. So an
            item that need not wait costs no coroutine.
        """
        pool, completion = self.pool, self._completion
        record = Record(completion.admitted, item)
        completion.admitted += 1
        self._reserve(NO_OUTCOME)
        pool.stage_state.arrived += 1
        self.admitted = admitted = self.admitted + 1
        if self.priority != DEFAULT_PRIORITY:
            record.priority = self.priority
        if self._unsent:
            return self._prepare_next(record, must_publish=True)
        # First, because a worker may have the item before `send` returns.
        if self._bus.status_subscriptions:
            pending = publish(self._bus, "queued", record, pool.name, None, time())
            if pending is not None:
                return self._prepare_next(record, handlers=pending)
        try:
            pool.queue.inlet.send_nowait(record)
        except WouldBlock:
            return self._prepare_next(record)
        if admitted % ITEMS_PER_YIELD and (self._unrestricted or self._enter_window()):
            return None
        return self._prepare_next()

    async def _admit_reply(self, item: Any) -> bool:
        """Admit what the source yielded in reply to a cancellation, also beyond the window."""
        if self.sink is not None:
            self.sink.enter_anyway()
        pending = self._admit(item)
        # If there is nothing to wait for, the next item is in the window already.
        self._has_entered = pending is None
        return True if pending is None else await pending

    def _enter_window(self) -> bool:
        """Let the next item enter the window; return False if it is full or after `stop()`."""
        return not self._stopped and self.sink is not None and self.sink.enter()

    async def _prepare_next(
        self,
        record: Record | None = None,
        *,
        must_publish: bool = False,
        handlers: Awaitable[None] | None = None,
    ) -> bool:
        """
        Send *record*, if given, and wait for room for the next item.

        Returns:
            Whether to read on.
        """
        if record is not None:
            self.paused.set()
            await self._outbox.send(record, must_publish, handlers)
        if self.admitted and not self.admitted % ITEMS_PER_YIELD:
            await checkpoint()
        while not self._stopped and self.sink is not None and not self.sink.enter():
            self.paused.set()
            await self.sink.wait_for_window()
        self._has_entered = not self._stopped
        return not self._stopped


def _cannot_throw(cancellation: BaseException) -> NoReturn:
    raise PipelineError(
        "a scope or time limit that the source holds open was cancelled while the source was not "
        "running. Write the source as a generator: the cancellation is raised at its yield then."
    ) from cancellation
