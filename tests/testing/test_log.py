"""A log records items read, events and results taken, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from antflow import Item, Pipeline, PipelineError, Stage, StageValidationError, StatusEvent
from antflow.testing import Ended, EventLog, Opened, Read, Taken, slow


def pipeline_of_one() -> Pipeline:
    return Pipeline([Stage("A", 1, [slow(0)], queue_capacity=0)])


def labels(log: EventLog) -> list[str]:
    return [
        entry.status if isinstance(entry, StatusEvent) else type(entry).__name__
        for entry in log.entries
        if entry not in log.task_events
    ]


async def test_entries_are_in_order_of_occurrence() -> None:
    pipeline = pipeline_of_one()
    log = EventLog(pipeline)
    async with pipeline.stream(log.source(["a"])) as results:
        assert [result.value async for result in log.sink(results)] == ["a"]
    steps = ["queued", "in_progress", "completed"]
    assert [label for label in labels(log) if label not in ("Ended", "Taken")] == [
        "Opened",
        "Read",
        *steps,
    ]
    assert labels(log).count("Ended") == labels(log).count("Taken") == 1
    assert labels(log).index("Taken") > labels(log).index("completed")
    assert [event.event_type for event in log.task_events] == ["start", "complete"]
    assert [event.status for event in log.status_events] == steps
    assert log.read == len(log.taken) == 1
    assert repr(log) == f"<EventLog: 1 read, {len(log.entries)} entries>"


async def test_a_log_gives_items_the_ids_and_numbers_that_the_run_gives_them() -> None:
    log = EventLog(pipeline_of_one())
    items = ["a", Item("b", id="B"), {"id": "C", "value": "c"}, {"id": "D"}]
    results = await log.pipeline.run(log.source(items))
    reads = [(entry.item_id, entry.sequence_id) for entry in log.entries if isinstance(entry, Read)]
    assert reads == [(result.id, result.sequence_id) for result in results]
    assert reads == [(0, 0), ("B", 1), ("C", 2), ("D", 3)]


async def test_a_log_shows_the_history_of_one_item() -> None:
    pipeline = pipeline_of_one()
    log = EventLog(pipeline)
    async with pipeline.stream(log.source(["x", "y"])) as results:
        async for _ in log.sink(results):
            pass
    assert {getattr(entry, "item_id", 1) for entry in log.of(1)} == {1}
    assert [type(entry).__name__ for entry in log.of(1)][::6] == ["Read", "Taken"]
    lines = [line.partition("] ")[2] for line in log.story(1).splitlines()]
    assert lines == [
        "read from the source as number 1",
        "A: queued",
        "A: in_progress, A-W0",
        "A: start slow, attempt 1, A-W0",
        "A: complete slow, attempt 1, A-W0",
        "A: completed, A-W0",
        "taken from the stream as number 1",
    ]
    assert log.of(7) == []


async def test_a_history_contains_errors() -> None:
    async def bad(value: Any) -> Any:
        raise ValueError("no good")

    pipeline = Pipeline([Stage("A", 1, [bad], task_attempts=1)])
    log = EventLog(pipeline)
    await pipeline.run([1])
    assert "A: fail bad, attempt 1, A-W0 (ValueError('no good'))" in log.story(0)
    assert "A: failed, A-W0 ('no good')" in log.story(0)


async def test_a_log_records_nothing_after_its_block() -> None:
    pipeline = pipeline_of_one()
    with EventLog(pipeline) as log:
        await pipeline.run([1])
    recorded = len(log.entries)
    await pipeline.run([1])
    assert len(log.entries) == recorded == 5
    assert pipeline.events.status_subscriptions == pipeline.events.task_subscriptions == []


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_source_is_closed_and_the_log_says_whether_it_was_exhausted(kind: str) -> None:
    closed = []

    def sync_source() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(kind)

    async def async_source() -> AsyncIterator[int]:
        try:
            for number in range(100):
                yield number
        finally:
            closed.append(kind)

    make = sync_source if kind == "sync" else async_source
    log = EventLog(pipeline_of_one())
    await log.pipeline.run(log.source(make()))
    assert log.entries[0] == Opened(0)
    assert [entry for entry in log.entries if isinstance(entry, Ended)] == [Ended(0, early=False)]
    async with log.pipeline.stream(log.source(make()), buffer_size=0) as results:
        await anext(log.sink(results))
    assert log.entries[-1] == Ended(1, early=True)
    assert closed == [kind, kind]


class AsyncOnes:
    """An async iterator that is not a generator."""

    def __init__(self) -> None:
        self.remaining = 2

    def __aiter__(self) -> AsyncOnes:
        return self

    async def __anext__(self) -> int:
        if not self.remaining:
            raise StopAsyncIteration
        self.remaining -= 1
        return 1


async def test_a_source_need_not_be_a_generator() -> None:
    log = EventLog(pipeline_of_one())
    results = await log.pipeline.run(log.source(AsyncOnes()))
    assert results.values == [1, 1]


async def test_results_can_be_taken_one_by_one() -> None:
    log = EventLog(pipeline_of_one())
    (result,) = await log.pipeline.run([1])
    assert log.take(result) is result
    assert log.entries[-1] == Taken(result)


def test_arguments_are_checked() -> None:
    with pytest.raises(StageValidationError, match="pipeline must be a Pipeline, got None"):
        EventLog(None)  # type: ignore[arg-type]
    log = EventLog(pipeline_of_one())
    with pytest.raises(PipelineError, match=r"EventLog.source\(\): items must be an iterable"):
        log.source(3)  # type: ignore[arg-type]
    with pytest.raises(
        StageValidationError, match=r"EventLog.take\(\): result must be a PipelineR"
    ):
        log.take(3)  # type: ignore[arg-type]
    with pytest.raises(StageValidationError, match="results must be what pipeline"):
        log.sink([])  # type: ignore[arg-type]
