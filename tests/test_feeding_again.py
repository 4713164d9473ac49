"""Failures and results as inputs: they keep id and metadata; and what a failure tells."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import (
    FailedItem,
    Item,
    Pipeline,
    PipelineError,
    PipelineResult,
    Results,
    Stage,
    StatusTracker,
)

HOWS = ["run", "stream", "ordered stream", "feed", "feed in a block", "open", "feed a run"]


async def take(pipeline: Pipeline, items: Any, how: str) -> list[PipelineResult]:
    """Take *items* through *pipeline* in one of the ways; failures of a stream are left out."""
    if how == "run":
        return await pipeline.run(items)
    if "stream" in how:
        async with pipeline.stream(items, ordered=how != "stream") as results:
            return [result async for result in results if result.is_success]
    if how == "feed":
        await pipeline.feed(items)
        return pipeline.results
    if how == "feed in a block":
        async with pipeline:
            await pipeline.feed(items)
        return pipeline.results
    async with pipeline.open(items if how == "open" else None) as run:
        if how == "feed a run":
            await run.feed(items)
    return run.results


async def double(value: Any) -> Any:
    return value * 2


def doubling() -> Pipeline:
    return Pipeline([Stage("Double", 1, [double], retry=None)])


class Once:
    """Fails for the first time that it sees a value."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, value: Any) -> Any:
        self.seen.append(value)
        if self.seen.count(value) == 1:
            raise ValueError(value)
        return value


SOURCE = [Item("a", id="x", metadata={"n": 1}), "b", {"id": None, "value": "c", "n": 2}]
KNOWN = [("x", "aa", {"n": 1}), (1, "bb", {}), (None, "cc", {"n": 2})]


def known(results: list[PipelineResult]) -> list[tuple[Any, Any, dict[str, Any]]]:
    return [(result.id, result.value, result.metadata) for result in results]


@pytest.mark.parametrize("how", HOWS)
async def test_failures_are_fed_again_with_their_ids_and_metadata(how: str) -> None:
    once = Once()
    pipeline = Pipeline(
        [Stage("Double", 1, [double], retry=None), Stage("Once", 1, [once], retry=None)]
    )
    failures = (await pipeline.run(SOURCE)).failures
    # The task of the first stage is given the input, and not what the failing stage was given.
    assert known(await take(pipeline, failures, how)) == KNOWN
    assert once.seen == ["aa", "bb", "cc"] * 2
    assert failures[0].metadata == {"n": 1}


@given(
    st.lists(
        st.integers(0, 2)
        | st.builds(
            Item,
            st.integers(0, 2),
            id=st.none() | st.text() | st.lists(st.integers()),
            metadata=st.dictionaries(st.text(), st.integers()),
        )
    ),
    st.sampled_from(HOWS),
)
async def test_feeding_failures_until_there_are_none_loses_nothing(
    items: list[Any], how: str
) -> None:
    """The value says how often an item fails. Ids and metadata may be anything."""
    tried: dict[int, int] = {}

    async def fail_as_often(value: list[int]) -> int:
        tried[id(value)] = tried.get(id(value), 0) + 1
        if tried[id(value)] <= value[0]:
            raise ValueError
        return value[0]

    # Lists, because each has an identity of its own.
    source = [
        attrs.evolve(item, value=[item.value]) if isinstance(item, Item) else [item]
        for item in items
    ]
    expected = [
        (number, item[0], {}) if isinstance(item, list) else (item.id, item.value[0], item.metadata)
        for number, item in enumerate(source)
    ]
    pipeline = Pipeline([Stage("A", 2, [fail_as_often], retry=None)])
    first = await pipeline.run(source)
    taken, failures = known(first), first.failures
    for _ in range(2):
        failures.sort(key=lambda failure: failure.sequence_id or 0)
        if "stream" in how:
            async with pipeline.stream(failures, ordered=how != "stream") as stream:
                results = [result async for result in stream]
            failures = [result.failure for result in results if result.failure is not None]
            taken += known([result for result in results if result.is_success])
        else:
            taken += known(await take(pipeline, failures, how))
            failures = pipeline.failures
    assert failures == []
    assert sorted(map(repr, taken)) == sorted(map(repr, expected))


@pytest.mark.parametrize("how", HOWS)
async def test_results_pass_on_value_id_and_metadata(how: str) -> None:
    first = await doubling().run(SOURCE)
    # One item less: ids that are running numbers are no longer the position in the source.
    second = await take(doubling(), first[1:], how)
    assert known(second) == [(1, "bbbb", {}), (None, "cccc", {"n": 2})]
    assert [result.sequence_id for result in second] == [0, 1]
    second[1].metadata["own"] = True
    assert first[2].metadata == {"n": 2}


@pytest.mark.parametrize("how", HOWS)
async def test_the_result_of_a_failed_item_is_refused_after_the_items_before_it(how: str) -> None:
    failed = PipelineResult("x\n", "half done", 7, {}, ValueError("bad"))
    pipeline = doubling()
    with pytest.raises(PipelineError, match=r"item 'x\\n', which failed.*Feed result\.failure"):
        await take(pipeline, ["a", failed, "b"], how)
    if "stream" not in how:
        assert pipeline.results.values == ["aa"]


async def test_pipelines_can_be_chained_by_their_streams() -> None:
    async with doubling().stream(SOURCE, ordered=True) as doubled:
        results = await doubling().run(doubled)
    assert known(results) == [("x", "aaaa", {"n": 1}), (1, "bbbb", {}), (None, "cccc", {"n": 2})]


async def test_values_of_items_and_what_tasks_return_are_values() -> None:
    inner = PipelineResult("inner", "value", 3)
    failed = FailedItem("inner", "text", "ValueError", "A", 1, 0.0, value="input")

    async def same(value: Any) -> Any:
        return value

    pipeline = Pipeline([Stage("A", 1, [same]), Stage("B", 1, [same])])
    results = await pipeline.run([Item(inner), {"id": 4, "value": failed}])
    assert known(results) == [(0, inner, {}), (4, failed, {})]


@pytest.mark.parametrize(
    "one",
    [PipelineResult(1, 2, 3), FailedItem(1, "", "E", "A", 1, 0.0), Item(1)],
    ids=lambda one: type(one).__name__,
)
async def test_one_of_them_in_place_of_a_list_is_refused_with_a_hint(one: Any) -> None:
    with pytest.raises(PipelineError, match="It looks like a single item: put it in a list"):
        await doubling().run(one)


async def test_a_failure_becomes_an_item_for_the_start_or_for_its_stage() -> None:
    once = Once()
    pipeline = Pipeline(
        [Stage("Double", 1, [double], retry=None), Stage("Once", 1, [once], retry=None)]
    )
    failure = (await pipeline.run(SOURCE)).failures[0]
    assert failure.as_item() == Item("a", id="x", metadata={"n": 1})
    item = failure.as_item(from_start=False)
    assert item == Item("aa", id="x", metadata={"n": 1})
    item.metadata["own"] = True
    assert failure.metadata == {"n": 1}
    await pipeline.feed([item], target_stage=failure.stage)
    assert known(pipeline.results) == [("x", "aa", {"n": 1, "own": True})]


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_failed_result_of_a_stream_has_the_failure(ordered: bool) -> None:
    pipeline = Pipeline(
        [Stage("Double", 1, [double], retry=None), Stage("Once", 1, [Once()], retry=None)]
    )
    async with pipeline.stream(SOURCE, ordered=ordered) as stream:
        results = [result async for result in stream]
    for result, item in zip(results, ["a", "b", "c"]):
        failure = result.failure
        assert failure is not None
        assert not result.is_success
        assert result.error is failure.exception
        assert (failure.stage, failure.task_name, failure.value) == ("Once", "Once", item)
        assert (failure.item_id, failure.metadata) == (result.id, result.metadata)
        assert failure.stage_value == result.value
    async with pipeline.stream([result.failure for result in results]) as stream:
        assert known([result async for result in stream]) == KNOWN


async def test_on_failure_is_told_the_stage_and_the_input() -> None:
    payloads: list[dict[str, Any]] = []

    def tell(item_id: Any, error: BaseException, payload: dict[str, Any]) -> None:
        payloads.append(payload)

    pipeline = Pipeline(
        [
            Stage("Double", 1, [double], retry=None),
            Stage("Once", 1, [Once()], retry=None, on_failure=tell),
        ],
        status_tracker=StatusTracker(on_failure=tell),
    )
    await pipeline.run(SOURCE[:1])
    expected = {"id": "x", "value": "aa", "metadata": {"n": 1}}
    assert payloads == [{**expected, "input": "a", "stage": "Once"}] * 2


async def test_value_or_raise_gives_the_value_or_the_error_itself() -> None:
    error = KeyError("gone")
    assert PipelineResult(0, "value", 0).value_or_raise() == "value"
    failed = PipelineResult(0, "half done", 0, error=error)
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            failed.value_or_raise()
        assert caught.value is error
        assert error.__context__ is None


def test_value_or_raise_leaves_no_reference_cycle() -> None:
    def ask() -> None:
        with suppress(ValueError):
            PipelineResult(0, None, 0, error=ValueError()).value_or_raise()

    ask()
    gc.collect()
    gc.disable()
    try:
        ask()
        assert gc.collect() == 0
    finally:
        gc.enable()


class TestReprOfResults:
    def test_shows_the_first_three_and_a_count(self) -> None:
        results = Results([PipelineResult(number, "v", number) for number in range(5000)])
        text = repr(results)
        assert text.startswith("<Results: 5000 succeeded: [PipelineResult(id=0, ")
        assert text.count("PipelineResult(") == 3
        assert text.endswith(", … and 4997 more]>")

    @pytest.mark.parametrize("count", range(4))
    def test_shows_all_of_few(self, count: int) -> None:
        results = Results([PipelineResult(number, "v", number) for number in range(count)])
        assert repr(results) == f"<Results: {count} succeeded: {list(results)!r}>"

    async def test_so_do_the_reprs_of_snapshots(self) -> None:
        async def fail(value: Any) -> None:
            raise ValueError

        failing = Pipeline([Stage("A", 100, [fail], retry=None)])
        await failing.run(range(200))
        snapshot = failing.get_dashboard_snapshot()
        assert "… and 197 more" in repr(snapshot.error_summary)
        assert repr(snapshot).count("… and 97 more") == 2
        assert len(repr(snapshot)) < 3000

    def test_is_short_and_in_one_line_whatever_the_values(self) -> None:
        class Hostile:
            def __repr__(self) -> str:
                raise LookupError

        class Lines:
            def __repr__(self) -> str:
                return "a\nb"

        values = ["x" * 10_000_000, Hostile(), Lines(), 4]
        text = repr(Results([PipelineResult(0, value, 0) for value in values]))
        assert "whose repr() raises" in text
        assert "\n" not in text
        assert len(text) < 700
