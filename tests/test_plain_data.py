"""`to_dict()`: results, failures, events and snapshots as data that JSON has."""

from __future__ import annotations

import datetime as dt
import enum
import json
import types
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import antflow
from antflow import FailedItem, Pipeline, PipelineResult, Results, Stage, StatusTracker, TaskEvent
from antflow._model.plain_data import PlainData

PUBLIC = [getattr(antflow, name) for name in antflow.__all__]
ALL = [kind for kind in PUBLIC if isinstance(kind, type) and issubclass(kind, PlainData)]


def strict(data: Any) -> Any:
    """Return *data* as it comes out of JSON that other languages accept, too."""
    return json.loads(json.dumps(data, allow_nan=False))


def plain(value: Any) -> Any:
    return PipelineResult(0, value, 0).to_dict()["value"]


class TestWhatARunMakes:
    async def test_everything_becomes_json(self) -> None:
        events: list[Any] = []

        async def work(value: Any) -> Any:
            if value == 2:
                raise ValueError("two\n")
            return value

        tracker = StatusTracker(
            on_status_change=events.append, on_task_start=events.append, on_task_fail=events.append
        )
        pipeline = Pipeline([Stage("A", 1, [work], retry=None)], status_tracker=tracker)
        results = await pipeline.run([1, {"id": ("a", 1), "value": 2, "n": {3}}])
        snapshot = pipeline.get_dashboard_snapshot()
        met: set[type] = set()
        parts = [
            *events,
            results,
            *results,
            *results.failures,
            *snapshot.worker_states.values(),
            *snapshot.worker_metrics.values(),
            snapshot.pipeline_stats,
            *snapshot.pipeline_stats.stage_stats.values(),
            snapshot.error_summary,
            snapshot,
        ]
        for part in parts:
            met.add(type(part))
            data = part.to_dict()
            assert strict(data) == data
            if type(part) is not Results:
                assert list(data) == [field.name for field in attrs.fields(type(part))]
        assert met == set(ALL)
        (failure,) = results.to_dict()["failures"]
        assert failure["item_id"] == ["a", 1]
        assert failure["metadata"] == {"n": [3]}
        assert failure["exception"] == {"type": "ValueError", "text": "two\n"}
        assert snapshot.to_dict()["error_summary"]["failed_items"] == [failure]
        assert results.to_dict()["results"] == [
            {"id": 0, "value": 1, "sequence_id": 0, "metadata": {}, "error": None, "failure": None}
        ]

    def test_the_original_stays_as_it_is(self) -> None:
        value = {"list": [1]}
        result = PipelineResult(0, value, 0)
        data = result.to_dict()
        data["value"]["list"].append(2)
        assert value == {"list": [1]}


class Colour(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    def __str__(self) -> str:
        raise LookupError


class BadList(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise LookupError


class Hostile:
    def __repr__(self) -> str:
        raise LookupError


class SilentError(Exception):
    def __str__(self) -> str:
        raise LookupError


DAY = dt.date(2026, 1, 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        ("ü\n", "ü\n"),
        (Text("text"), "text"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        ((1, [2]), [1, [2]]),
        (frozenset({1}), [1]),
        ({1: 2, "a": DAY, None: 3}, {"1": 2, "a": repr(DAY), "None": 3}),
        ({Text("key"): 1}, {"key": 1}),
        (types.MappingProxyType({"a": (1,)}), {"a": [1]}),
        (DAY, "datetime.date(2026, 1, 2)"),
        (b"\0", "b'\\x00'"),
        (KeyError("k"), {"type": "KeyError", "text": "'k'"}),
        (ValueError(), {"type": "ValueError", "text": "ValueError"}),
        (SilentError(), {"type": "SilentError", "text": "<SilentError whose text cannot be read>"}),
        (Hostile(), "<Hostile whose repr() raises>"),
        (BadList(), "[]"),
    ],
)
def test_each_kind_of_value(value: Any, expected: Any) -> None:
    data = plain(value)
    assert strict(data) == data == expected
    assert type(data) is type(expected)


def test_a_value_that_raises_when_it_is_asked_for_an_attribute_becomes_its_repr() -> None:
    class Closed:
        def __getattribute__(self, name: str) -> Any:
            raise LookupError(name)

        def __repr__(self) -> str:
            return "closed"

    assert plain(Closed()) == "closed"


def test_a_container_inside_itself_becomes_its_repr() -> None:
    endless: list[Any] = [1]
    endless.append(endless)
    assert plain(endless) == [1, "[1, [...]]"]
    twice = [1]
    assert plain([twice, twice]) == [[1], [1]]


def test_a_result_inside_itself_becomes_a_repr() -> None:
    result = PipelineResult(0, [], 0)
    result.value.append(result)
    (inside,) = result.to_dict()["value"]
    assert isinstance(inside, str)
    inner = TaskEvent(1, "A", "t", "A-W0", "start", 1, 0.0)
    assert plain([inner]) == [inner.to_dict()]
    failed = FailedItem(1, "text", "E", "A", 1, 0.0, value=Results([]))
    assert plain(failed)["value"] == {"results": [], "failures": []}


def test_deep_containers_end_in_a_repr() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    json.dumps(plain(deep))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.dates()
    | st.builds(ValueError, st.text())
    | st.builds(Hostile),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner)
        | st.builds(PipelineResult, inner, inner, st.integers())
    ),
    max_leaves=20,
)


@given(VALUES)
def test_any_value_becomes_json(value: Any) -> None:
    data = plain(value)
    assert strict(data) == data
