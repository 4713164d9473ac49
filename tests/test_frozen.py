"""Frozen instances that a run makes are equal to those that their class makes."""

from __future__ import annotations

import copy
import itertools
import pickle
import pydoc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import attrs
import pytest

from antflow import Item, Pipeline, PipelineResult, Stage, StatusEvent, StatusTracker
from antflow._model import fast_frozen

SOURCES = [
    pytest.param(7, 0, {}, id="bare"),
    pytest.param({"id": "a", "value": 7}, "a", {}, id="dict"),
    pytest.param({"id": "a", "value": 7, "x": "t"}, "a", {"x": "t"}, id="dict with more"),
    pytest.param(Item(7), 0, {}, id="item"),
    pytest.param(Item(7, metadata={"x": "t"}), 0, {"x": "t"}, id="item with metadata"),
]
Made = PipelineResult | StatusEvent
COPIES: list[Callable[[Made], Made]] = [
    copy.copy,
    copy.deepcopy,
    attrs.evolve,
    lambda record: pickle.loads(pickle.dumps(record)),
]


async def same(value: Any) -> Any:
    return value


async def run(item: Any) -> tuple[PipelineResult, StatusEvent]:
    tracker = StatusTracker()
    (result,) = await Pipeline([Stage("A", 1, [same])], status_tracker=tracker).run([item])
    (event,) = tracker.get_by_status("completed")
    return result, event


@pytest.mark.parametrize(("item", "item_id", "metadata"), SOURCES)
class TestInstancesThatARunMakes:
    async def test_they_equal_instances_of_the_class(
        self, item: Any, item_id: Any, metadata: dict[str, Any]
    ) -> None:
        result, event = await run(item)
        assert type(result) is PipelineResult
        assert result == PipelineResult(item_id, 7, 0, metadata)
        assert repr(result) == repr(PipelineResult(item_id, 7, 0, metadata))
        like = StatusEvent(item_id, "A", "completed", "A-W0", event.timestamp, metadata)
        assert type(event) is StatusEvent
        assert event == like
        assert repr(event) == repr(like)

    async def test_they_can_be_copied_before_they_are_read(
        self, item: Any, item_id: Any, metadata: dict[str, Any]
    ) -> None:
        for make_copy in COPIES:
            for record in await run(item):
                copied = make_copy(record)
                assert type(copied) is type(record)
                assert copied == record
                assert copied.metadata == metadata

    async def test_they_are_frozen(self, item: Any, item_id: Any, metadata: dict[str, Any]) -> None:
        for record in await run(item):
            for name in (field.name for field in attrs.fields(type(record))):
                with pytest.raises(attrs.exceptions.FrozenInstanceError):
                    setattr(record, name, None)
                with pytest.raises(attrs.exceptions.FrozenInstanceError):
                    delattr(record, name)

    async def test_they_have_their_own_metadata(
        self, item: Any, item_id: Any, metadata: dict[str, Any]
    ) -> None:
        result, event = await run(item)
        for record in (result, event):
            record.metadata["seen"] = True
            assert record.metadata == {**metadata, "seen": True}
        again, other = await run(item)
        assert again.metadata == other.metadata == metadata


async def fail(value: Any) -> None:
    raise ValueError(value)


@pytest.mark.parametrize(("item", "item_id", "metadata"), SOURCES)
async def test_a_failure_shares_no_metadata_with_its_result(
    item: Any, item_id: Any, metadata: dict[str, Any]
) -> None:
    received: list[StatusEvent] = []
    pipeline = Pipeline([Stage("A", 1, [fail], task_attempts=1)])
    pipeline.events.subscribe(StatusEvent, received.append)
    async with pipeline.stream([item]) as results:
        (result,) = [result async for result in results]
    failed = received[-1].failed_item
    assert failed is not None
    failed.metadata["seen"] = True
    assert result.metadata == metadata


async def test_the_metadata_of_a_result_is_not_shared() -> None:
    """The payload of the next callback has its own metadata."""
    received: list[Any] = []

    def spoil(item_id: Any, value: Any, payload: Any) -> None:
        pipeline.results[0].metadata["spoilt"] = True

    tracker = StatusTracker(on_success=lambda item_id, value, payload: received.append(payload))
    stage = Stage("A", 1, [same], on_success=spoil)
    pipeline = Pipeline([stage], status_tracker=tracker)
    await pipeline.run([Item(7, metadata={"x": "t"})])
    assert received == [{"id": 0, "value": 7, "metadata": {"x": "t"}}]


def test_threads_that_read_at_the_same_time_get_the_same_metadata() -> None:
    reads = itertools.count()
    together = Barrier(2)

    class Slot:
        """A slot whose first two accesses wait for each other, so both threads find it empty."""

        kept = None

        def __get__(self, instance: object, owner: type | None = None) -> Any:
            kept = self.kept
            if next(reads) < 2:
                together.wait()
            return kept

        def __set__(self, instance: object, value: Any) -> None:
            # So the other thread cannot be between its second read and this line.
            assert fast_frozen._metadata_lock._is_owned()  # type: ignore[attr-defined]
            self.kept = value

    class Record:
        metadata = fast_frozen.LazyDict(Slot())

    record = Record()
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(lambda: record.metadata) for _ in range(2))
    assert first.result() is second.result()


def test_a_read_during_another_read_does_not_deadlock() -> None:
    """A signal handler or a finalizer may read metadata at any time."""
    inner = PipelineResult(0, 7, 0, metadata=None)  # type: ignore[arg-type]

    class Slot:
        kept = None

        def __get__(self, instance: object, owner: type | None = None) -> Any:
            return self.kept

        def __set__(self, instance: object, value: Any) -> None:
            assert inner.metadata == {}
            self.kept = value

    class Record:
        metadata = fast_frozen.LazyDict(Slot())

    assert Record().metadata == {}


def test_help_lists_their_metadata() -> None:
    for cls in (PipelineResult, StatusEvent):
        assert "metadata" in pydoc.render_doc(cls)
