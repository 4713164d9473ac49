"""Frozen records that are made fast do not differ from those that their class makes."""

from __future__ import annotations

import copy
import pickle
import pydoc
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from antflow import Item, Pipeline, PipelineResult, Stage, StatusEvent, StatusTracker

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
class TestWhatARunMakes:
    async def test_equals_what_one_makes_by_hand(
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

    async def test_can_be_copied_before_anybody_looked_at_it(
        self, item: Any, item_id: Any, metadata: dict[str, Any]
    ) -> None:
        for make_copy in COPIES:
            for record in await run(item):
                copied = make_copy(record)
                assert type(copied) is type(record)
                assert copied == record
                assert copied.metadata == metadata

    async def test_is_frozen(self, item: Any, item_id: Any, metadata: dict[str, Any]) -> None:
        for record in await run(item):
            for name in (field.name for field in attrs.fields(type(record))):
                with pytest.raises(attrs.exceptions.FrozenInstanceError):
                    setattr(record, name, None)
                with pytest.raises(attrs.exceptions.FrozenInstanceError):
                    delattr(record, name)

    async def test_has_metadata_of_its_own(
        self, item: Any, item_id: Any, metadata: dict[str, Any]
    ) -> None:
        result, event = await run(item)
        for record in (result, event):
            record.metadata["seen"] = True
            assert record.metadata == {**metadata, "seen": True}
        again, other = await run(item)
        assert again.metadata == other.metadata == metadata


def test_help_describes_them() -> None:
    for cls in (PipelineResult, StatusEvent):
        assert "metadata" in pydoc.render_doc(cls)
