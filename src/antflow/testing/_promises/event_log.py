"""A record of one run, in order: events, items read from the sources, results taken."""

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
from .._equality import equality_key
from .entries import Ended, Entry, ItemEntry, Opened, Read, Taken, format_entry, item_key


class EventLog:
    """
    Records in order what happens in one run of *pipeline*::

        log = EventLog(pipeline)
        results = await pipeline.run(log.source(items))
        assert_promises(log, results)

    With a stream::

        async with pipeline.stream(log.source(items)) as results:
            async for result in log.sink(results):
                ...
        assert_promises(log)

    It records from its creation until `close()` or the end of its ``with`` block. A log covers one
    run. Before the next run, close it and create another.

    Args:
        pipeline: The pipeline to record. It is subscribed to at once.

    Attributes:
        pipeline: The pipeline.
        entries: All entries so far: `StatusEvent`, `TaskEvent`, `Opened`, `Read`, `Ended` and
            `Taken`.
        buffer_size: The buffer size of the stream that was passed to `sink()`, in results; None
            before that.
        window: The window of that stream, in items; None before that, or if it is not ordered.

    Raises:
        StageValidationError: *pipeline* is not a `Pipeline`.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        if not isinstance(pipeline, Pipeline):
            hint = "Write EventLog(pipeline) before the run."
            reject_argument("EventLog()", "pipeline", "a Pipeline", pipeline, hint)
        self.pipeline = pipeline
        self.entries: list[Entry] = []
        self.buffer_size: float | None = None
        self.window: int | None = None
        self._items_read = 0
        self._sources_opened = 0
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
        """Stop recording. The entries stay available."""
        self.pipeline.events.unsubscribe(self._subscription)

    @property
    def read(self) -> int:
        """The number of items read from the sources so far."""
        return self._items_read

    @property
    def taken(self) -> list[PipelineResult]:
        """The results taken so far, in the order in which they were taken."""
        return [entry.result for entry in self.entries if isinstance(entry, Taken)]

    @property
    def status_events(self) -> list[StatusEvent]:
        """The status events so far, in order."""
        return [entry for entry in self.entries if isinstance(entry, StatusEvent)]

    @property
    def task_events(self) -> list[TaskEvent]:
        """The task events so far, in order."""
        return [entry for entry in self.entries if isinstance(entry, TaskEvent)]

    def of(self, item_id: Any) -> list[ItemEntry]:
        """Return the entries about one item, in order."""
        return [entry for _, entry in self._entries_of(item_id)]

    def story(self, item_id: Any) -> str:
        """Return the entries about one item as lines of text, each with its index in `entries`."""
        return "\n".join(
            f"  [{index}] {format_entry(entry)}" for index, entry in self._entries_of(item_id)
        )

    def _entries_of(self, item_id: Any) -> Iterator[tuple[int, ItemEntry]]:
        key = equality_key(item_id)
        for index, entry in enumerate(self.entries):
            if not isinstance(entry, (Opened, Ended)) and key == item_key(entry):
                yield index, entry

    def source(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        priority: float = DEFAULT_PRIORITY,
    ) -> Any:
        """
        Return a generator over *items* that records each item when it is read.

        It is an async generator if *items* is an async iterable. Wrap all sources of a run or none:
        the log numbers the items, and an unrecorded source would make these numbers wrong.

        Args:
            items: As for `Pipeline.run()`.
            priority: The priority with which the items will be fed. Default 100.

        Raises:
            PipelineError: *items* is not an iterable or async iterable, or is a single item.
        """
        check_items("EventLog.source()", items)
        if isinstance(items, AsyncIterable):
            return self._iterate_async(items, priority)
        return self._iterate(items, priority)

    def _iterate(self, source: Iterable[Any], priority: float) -> Generator[Any, None, None]:
        number = self._open_source()
        items = iter(source)
        early = True
        try:
            for item in items:
                self._record_read(item, number, priority)
                yield item
            early = False
        finally:
            self.entries.append(Ended(number, early))
            if isinstance(items, Generator):
                items.close()

    async def _iterate_async(
        self, source: AsyncIterable[Any], priority: float
    ) -> AsyncGenerator[Any, None]:
        number = self._open_source()
        items = aiter(source)
        early = True
        try:
            async for item in items:
                self._record_read(item, number, priority)
                yield item
            early = False
        finally:
            self.entries.append(Ended(number, early))
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    def _open_source(self) -> int:
        self.entries.append(Opened(self._sources_opened))
        self._sources_opened += 1
        return self._sources_opened - 1

    def _record_read(self, item: Any, source: int, priority: float) -> None:
        record = Record(self._items_read, item)
        self._items_read += 1
        self.entries.append(Read(record.id, record.sequence_id, source, priority))

    def take(self, result: PipelineResult) -> PipelineResult:
        """
        Record that *result* was taken from a stream, and return it.

        Raises:
            StageValidationError: *result* is not a `PipelineResult`.
        """
        if not isinstance(result, PipelineResult):
            hint = "Write log.take(result) for each result of a stream, or log.sink(results)."
            reject_argument("EventLog.take()", "result", "a PipelineResult", result, hint)
        self.entries.append(Taken(result))
        return result

    def sink(self, results: ResultStream) -> AsyncIterator[PipelineResult]:
        """
        Return an async iterator over *results* that records each result when it is taken.

        It also tells `assert_promises` how far ahead of the consumer the source may be read, and
        whether the results must be in input order.

        Raises:
            StageValidationError: *results* is not a `ResultStream`.
        """
        if not isinstance(results, ResultStream):
            hint = "Write `async for result in log.sink(results)` inside the `async with` block."
            reject_argument(
                "EventLog.sink()", "results", "what pipeline.stream() returns", results, hint
            )
        self.buffer_size = results._sink.room
        self.window = results._sink.window
        return _RecordingIterator(self, results)


class _RecordingIterator:
    """A class, since an async generator that is left early stays open until it is collected."""

    def __init__(self, log: EventLog, results: ResultStream) -> None:
        self._log = log
        self._results = results

    def __aiter__(self) -> _RecordingIterator:
        return self

    async def __anext__(self) -> PipelineResult:
        return self._log.take(await anext(self._results))
