"""The strategies draw what they document, and shrink to the simplest example."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from attrs import evolve
from hypothesis import find, given
from hypothesis import strategies as st

from antflow import Pipeline, PipelineError, Stage, StageValidationError
from antflow.testing import AsyncSource, DrawnTask, GeneratorSource, pipelines, sources, stages

SIMPLEST = Pipeline([Stage("A", 1, [DrawnTask([0.0], [0])])])


@pytest.mark.virtual_time
@given(source=sources(max_size=5))
async def test_sources_can_be_run_more_than_once(source: Any) -> None:
    for _ in range(2):
        results = await SIMPLEST.run(source)
        assert results.values == list(range(len(results)))
        assert len({result.id for result in results}) == len(results) <= 5


@pytest.mark.parametrize(
    ("kind", "simplest"),
    [
        (list, [0, 1]),
        (GeneratorSource, GeneratorSource([0, 1])),
        (AsyncSource, AsyncSource([0, 1])),
    ],
)
def test_each_kind_of_source_shrinks_to_bare_values(kind: type, simplest: Any) -> None:
    assert find(sources(min_size=2), lambda source: isinstance(source, kind)) == simplest


def test_sources_draw_items_and_dicts() -> None:
    for name, item_id in (("dict", "item 0"), ("Item", ("item", 0))):
        found = find(
            sources(min_size=1, max_size=1),
            lambda source, name=name: isinstance(source, list) and type(source[0]).__name__ == name,
        )
        item = found[0]
        assert (item["id"] if isinstance(item, dict) else item.id) == item_id


def test_stages_shrink_to_one_worker_and_a_task_that_returns_its_value() -> None:
    stage = find(stages("X"), lambda stage: True)
    assert (stage.name, stage.workers, stage.queue_capacity) == ("X", 1, 0)
    assert stage.tasks == (DrawnTask([0.0], [0]),)
    assert (stage.retry_policy.scope, stage.retry_policy.attempts) == ("task", 1)


@given(stage=stages(max_workers=2, max_capacity=1, max_failures=0))
def test_stages_keep_within_their_limits(stage: Stage) -> None:
    assert stage.workers <= 2
    assert stage.capacity <= 1
    assert {stage.tasks[0].failures_of(n) for n in range(9)} == {0}  # type: ignore[attr-defined]


def test_pipelines_shrink_to_what_matters() -> None:
    pipeline = find(
        pipelines(), lambda pipeline: len(pipeline.stages) > 1 and pipeline.stages[1].workers > 2
    )
    assert [(stage.name, stage.workers) for stage in pipeline.stages] == [("S0", 1), ("S1", 3)]


@pytest.mark.virtual_time
@given(data=st.data())
async def test_the_behaviour_of_a_drawn_task_is_known_in_advance(data: st.DataObject) -> None:
    stage = data.draw(stages())
    task = stage.tasks[0]
    assert isinstance(task, DrawnTask)
    results = await Pipeline([stage]).run(range(8))
    succeeds = [task.failures_of(n) < stage.retry_policy.attempts for n in range(8)]
    assert results.values == [n for n in range(8) if succeeds[n]]


async def test_a_drawn_task_calls_a_task_of_the_user() -> None:
    async def double(value: str) -> str:
        return value * 2

    stage = find(stages(task=double), lambda stage: True)
    results = await Pipeline([evolve(stage, name="A")]).run(["x", "yz"])
    assert results.values == ["xx", "yzyz"]
    task = DrawnTask([0, 1], [0, 3])
    assert {task.delay_of(word) for word in "abcdefgh"} == {0, 1}
    assert task.failures_of("a") == DrawnTask([0], [0, 3]).failures_of("a")


@pytest.mark.parametrize("strategy", [sources, stages, pipelines])
def test_without_hypothesis_the_error_says_what_to_install(
    strategy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[testing\]'"):
        strategy()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sources(min_size=-1), "sources.*: min_size must be a whole number of at least 0"),
        (lambda: sources(min_size=3, max_size=2), "max_size must be a whole number of at least 3"),
        (lambda: stages(task=3), "stages.*: task must be a function or None"),  # type: ignore[arg-type]
        (lambda: stages(max_workers=0), "max_workers must be a whole number of at least 1"),
        (lambda: stages(max_capacity=-1), "max_capacity must be a whole number of at least 0"),
        (lambda: stages(max_failures=-1), "max_failures must be a whole number of at least 0"),
        (lambda: pipelines(max_stages=0), "pipelines.*: max_stages must be a whole number of at"),
        (lambda: pipelines(max_workers=0), "max_workers must be a whole number of at least 1"),
    ],
)
def test_arguments_are_checked(call: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message) as caught:
        call()
    assert isinstance(caught.value, StageValidationError)
