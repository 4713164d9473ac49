"""The list that a run returns, whose results are made when somebody looks at one of them."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from antflow import FailedItem, Item, Pipeline, PipelineResult, Results, Stage, _state
from antflow._results import UnmadeResults

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


async def odd_fails(value: int) -> int:
    if value % 2:
        raise ValueError(value)
    return value


def pipeline() -> Pipeline:
    return Pipeline([Stage("A", 2, [odd_fails], task_attempts=1)])


ITEMS = [0, Item(2, id="two", metadata={"x": 1}), 3, 4]
MADE = [
    PipelineResult(0, 0, 0),
    PipelineResult("two", 2, 1, {"x": 1}),
    PipelineResult(3, 4, 3),
]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[PipelineResult]:
    """All results that were made so far."""
    made: list[PipelineResult] = []
    make = _state.new_result

    def new_result(*args: Any) -> PipelineResult:
        made.append(make(*args))
        return made[-1]

    monkeypatch.setattr(_state, "new_result", new_result)
    return made


async def test_values_failures_and_their_number_need_no_results(made: list[PipelineResult]) -> None:
    results = await pipeline().run(ITEMS)
    assert isinstance(results, Results)
    assert len(results) == 3
    assert bool(results)
    assert results.values == [0, 2, 4]
    assert [failed.value for failed in results.failures] == [3]
    with pytest.raises(ExceptionGroup):
        results.raise_for_failures()
    assert made == []
    assert results == MADE
    assert made == MADE
    # From now on it is a list like any other.
    assert type(results) is Results
    assert results.values == [0, 2, 4]
    assert len(made) == 3


def in_place(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def changed(results: Any) -> Any:
        change(results)
        return list(results)

    return changed


def append_slice(results: Any) -> Any:
    others = [1, 2]
    others[1:] = results
    return others


def extend(results: Any) -> Any:
    others = [1]
    others += results
    return others


def repeat(results: Any) -> Any:
    results *= 2
    return results


def match(results: Any) -> Any:
    first, *rest = results
    return first, rest


LOOKS: dict[str, Callable[[Any], Any]] = {
    "iter": lambda results: list(iter(results)),
    "tuple": tuple,
    "unpack": match,
    "star": lambda results: [*results],
    "call": lambda results: (lambda *args: args)(*results),
    "index": lambda results: results[-1],
    "slice": lambda results: results[1:],
    "reversed": lambda results: list(reversed(results)),
    "sorted": lambda results: sorted(results, key=lambda result: -result.value),
    "contains": lambda results: MADE[1] in results,
    "eq": lambda results: results == MADE,
    "eq, reflected": lambda results: MADE == results,  # noqa: SIM300
    "ne": lambda results: results != MADE,
    "add": lambda results: [*(results + [1])],  # noqa: RUF005
    "radd": lambda results: [1] + results,  # noqa: RUF005
    "mul": lambda results: results * 2,
    "rmul": lambda results: 2 * results,
    "imul": repeat,
    "iadd to another": extend,
    "into a slice": append_slice,
    "count": lambda results: results.count(MADE[0]),
    "find": lambda results: results.index(MADE[2]),
    "copy": lambda results: results.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda results: pickle.loads(pickle.dumps(results)),
    "pop": lambda results: (results.pop(), list(results)),
    "append": in_place(lambda results: results.append(1)),
    "insert": in_place(lambda results: results.insert(0, 1)),
    "extend": in_place(lambda results: results.extend([1])),
    "remove": in_place(lambda results: results.remove(MADE[1])),
    "reverse": in_place(lambda results: results.reverse()),
    "sort": in_place(lambda results: results.sort(key=lambda result: -result.value)),
    "clear": in_place(lambda results: results.clear()),
    "setitem": in_place(lambda results: results.__setitem__(0, 1)),
    "delitem": in_place(lambda results: results.__delitem__(0)),
    "iadd": in_place(lambda results: results.__iadd__([1])),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
async def test_whatever_looks_at_one_finds_it_made(look: Callable[[Any], Any]) -> None:
    results = await pipeline().run(ITEMS)
    assert look(results) == look(list(MADE))
    assert type(results) is Results


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_they_can_be_pickled_before_anybody_looked(protocol: int) -> None:
    results = await pipeline().run(ITEMS)
    again = pickle.loads(pickle.dumps(results, protocol))
    assert type(again) is Results
    assert again == MADE
    assert [failed.item_id for failed in again.failures] == [2]


async def test_the_repr_shows_results() -> None:
    results = await pipeline().run([2])
    assert repr(results) == f"<Results: 1 succeeded: [{PipelineResult(0, 2, 0)!r}]>"


async def test_no_method_of_a_list_was_forgotten() -> None:
    """Whatever this or a later Python's list has makes the results, or tells nothing of them."""
    harmless = {"__getattribute__", "__hash__", "__init__", "__len__", "__new__", "__sizeof__"}
    for name in vars(list).keys() - harmless - {"__class_getitem__", "__doc__"}:
        assert getattr(UnmadeResults, name).__wrapped__ is getattr(Results, name)


async def test_what_reads_the_memory_of_a_list_finds_a_hint() -> None:
    results = await pipeline().run(ITEMS)
    assert "give list(results)" in repr(list.__getitem__(results, 0))
    assert list.__len__(results) == 3


async def test_all_looks_show_the_same_objects() -> None:
    async with pipeline() as a:
        await a.feed([0, 2])
        await a.join()
        early = a.results
        await a.feed([4])
    late, later = a.results, a.results
    assert late.values == later.values == [0, 2, 4]
    for one, other in zip(late, later):
        assert one is other
    assert late[0] is early[0]
    assert late[1] is early[1]


async def test_threads_that_look_at_once_find_the_same() -> None:
    start = Barrier(4)

    def look(results: Results) -> list[int]:
        start.wait(timeout=10)
        values = results.values
        return [id(result) for result in results] + values

    with ThreadPoolExecutor(4) as threads:
        for _ in range(20):
            results = await pipeline().run(range(0, 40, 2))
            seen = list(threads.map(look, [results] * 4))
            assert all(one == seen[0] for one in seen)
            assert type(results) is Results


async def test_who_comes_late_finds_what_another_thread_has_made() -> None:
    """As in a thread that began to look at the same time, and had to wait."""
    results: Any = await pipeline().run(ITEMS)
    made = list(results)
    assert UnmadeResults.values.__get__(results) == [0, 2, 4]
    again = UnmadeResults.__iter__(results)
    assert all(one is other for one, other in zip(again, made))


async def test_a_look_while_they_are_made_finds_them_made() -> None:
    """As of a finalizer, or a handler of signals."""
    inner: list[list[PipelineResult]] = []

    def make() -> list[PipelineResult]:
        if not inner:
            inner.append([])
            inner[0] += results
        return [PipelineResult(0, "a", 0)]

    results = UnmadeResults(["a"], make, [])
    assert results == [PipelineResult(0, "a", 0)]
    assert inner[0][0] is results[0]


async def test_once_made_they_keep_nothing_of_the_run() -> None:
    a = pipeline()
    results = await a.run(ITEMS)
    books = weakref.ref(a._state)
    del a
    gc.collect()
    assert books() is not None
    list(results)
    gc.collect()
    assert books() is None
    assert isinstance(results.failures[0], FailedItem)
