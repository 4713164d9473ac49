"""What happened in a run, in order: events, what was read from the source, what was taken."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
)
from types import TracebackType
from typing import Any

from ..._api.pipeline import Pipeline
from ..._api.result_stream import ResultStream
from ..._definition.inputs import check_items
from ..._definition.validation import reject_argument
from ..._events.event_bus import Subscription
from ..._model.events import StatusEvent, TaskEvent
from ..._model.items import DEFAULT_PRIORITY
from ..._model.record import Record
from ..._model.results import PipelineResult
from .._equality import key_of
from .entries import Ended, Entry, ItemEntry, Opened, Read, Taken, describe, key_of_entry


class EventLog:
    """
    Records what happens in one run of *pipeline*, in order::

        log = EventLog(pipeline)
        results = await pipeline.run(log.source(items))
        assert_promises(log, results)

    Or, for a stream::

        async with pipeline.stream(log.source(items)) as results:
            async for result in log.sink(results):
                ...
        assert_promises(log)

    It listens from the start until `close()`, or until the end of a ``with`` block. One log is for
    one run: for the next, close it and make another.

    Args:
        pipeline: Listened to at once.

    Attributes:
        pipeline: The pipeline.
        entries: All that happened so far: `StatusEvent`, `TaskEvent`, `Opened`, `Read`, `Ended` and
            `Taken`.
        buffer_size: How many results may wait in the stream that `sink()` was given.
        window: The window of that stream, if it is ordered.

    Raises:
        StageValidationError: *pipeline* is no pipeline.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        if not isinstance(pipeline, Pipeline):
            hint = "Write EventLog(pipeline) before you run it."
            reject_argument("EventLog()", "pipeline", "a Pipeline", pipeline, hint)
        self.pipeline = pipeline
        self.entries: list[Entry] = []
        self.buffer_size: float | None = None
        self.window: int | None = None
        self._read_so_far = 0
        self._sources = 0
        self._subscription = Subscription(self.entries.append, "EventLog")
        pipeline.events.subscribe(StatusEvent, self._subscription)
        pipeline.events.subscribe(TaskEvent, self._subscription)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EventLog: {self.read} read, {len(self.entries)} entries>"

    def close(self) -> None:
        """Listen no more; what was recorded stays."""
        self.pipeline.events.unsubscribe(self._subscription)

    @property
    def read(self) -> int:
        """How many items were read from the sources so far."""
        return self._read_so_far

    @property
    def taken(self) -> list[PipelineResult]:
        """The results that were taken so far, in that order."""
        return [entry.result for entry in self.entries if isinstance(entry, Taken)]

    @property
    def status_events(self) -> list[StatusEvent]:
        """The status events so far."""
        return [entry for entry in self.entries if isinstance(entry, StatusEvent)]

    @property
    def task_events(self) -> list[TaskEvent]:
        """The task events so far."""
        return [entry for entry in self.entries if isinstance(entry, TaskEvent)]

    def of(self, item_id: Any) -> list[ItemEntry]:
        """Return what happened to one item."""
        return [entry for _, entry in self._about(item_id)]

    def story(self, item_id: Any) -> str:
        """Return what happened to one item as lines of text, numbered as in `entries`."""
        return "\n".join(
            f"  [{number}] {describe(entry)}" for number, entry in self._about(item_id)
        )

    def _about(self, item_id: Any) -> Iterator[tuple[int, ItemEntry]]:
        key = key_of(item_id)
        for number, entry in enumerate(self.entries):
            if not isinstance(entry, (Opened, Ended)) and key == key_of_entry(entry):
                yield number, entry

    def source(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        priority: float = DEFAULT_PRIORITY,
    ) -> Any:
        """
        Return *items*, as a generator or an async one, so that each one that is read is recorded.

        Wrap all that a run is fed with, or nothing: what is read without being seen here spoils
        the count.

        Args:
            items: As for `Pipeline.run()`.
            priority: With which they will be fed, if they are.
        """
        check_items("EventLog.source()", items)
        if isinstance(items, AsyncIterable):
            return self._give_async(items, priority)
        return self._give(items, priority)

    def _give(self, source: Iterable[Any], priority: float) -> Generator[Any, None, None]:
        number = self._open()
        items = iter(source)
        early = True
        try:
            for item in items:
                self._note(item, number, priority)
                yield item
            early = False
        finally:
            self.entries.append(Ended(number, early))
            if isinstance(items, Generator):
                items.close()

    async def _give_async(
        self, source: AsyncIterable[Any], priority: float
    ) -> AsyncGenerator[Any, None]:
        number = self._open()
        items = aiter(source)
        early = True
        try:
            async for item in items:
                self._note(item, number, priority)
                yield item
            early = False
        finally:
            self.entries.append(Ended(number, early))
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    def _open(self) -> int:
        self.entries.append(Opened(self._sources))
        self._sources += 1
        return self._sources - 1

    def _note(self, item: Any, source: int, priority: float) -> None:
        record = Record(self._read_so_far, item)
        self._read_so_far += 1
        self.entries.append(Read(record.id, record.sequence_id, source, priority))

    def take(self, result: PipelineResult) -> PipelineResult:
        """Record that *result* was taken from a stream, and return it."""
        if not isinstance(result, PipelineResult):
            hint = "Write log.take(result) for each result of a stream, or log.sink(results)."
            reject_argument("EventLog.take()", "result", "a PipelineResult", result, hint)
        self.entries.append(Taken(result))
        return result

    def sink(self, results: ResultStream) -> AsyncIterator[PipelineResult]:
        """
        Return an iterator over *results*, so that each one that is taken is recorded.

        With it, `assert_promises` knows how far ahead of the consumer the source may be read, and
        whether the results come in order.
        """
        if not isinstance(results, ResultStream):
            hint = "Write `async for result in log.sink(results)` inside of `async with`."
            reject_argument(
                "EventLog.sink()", "results", "what pipeline.stream() returns", results, hint
            )
        self.buffer_size = results._sink.room
        self.window = results._sink.window
        return _Taking(self, results)


class _Taking:
    """No generator: one that is left early would be closed by nobody knows whom."""

    def __init__(self, log: EventLog, results: ResultStream) -> None:
        self._log = log
        self._results = results

    def __aiter__(self) -> _Taking:
        return self

    async def __anext__(self) -> PipelineResult:
        return self._log.take(await anext(self._results))
