"""Definitions are checked when they are built, and each message says what to write."""

from __future__ import annotations

import functools
import math
import re
import warnings
from typing import Any

import pytest

from antflow import (
    AntFlowError,
    Item,
    Pipeline,
    PipelineError,
    RetryPolicy,
    Stage,
    StageValidationError,
    StatusTracker,
)


async def fetch(value: Any) -> Any:
    return value


class Caller:
    async def __call__(self, value: Any) -> Any:
        return value


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


WHOLE = "must be a whole number of at least"


def stage(**arguments: Any) -> Stage:
    return Stage(**{"name": "Fetch", "tasks": [fetch], **arguments})


def generator(value: Any) -> Any:
    yield value


async def async_generator(value: Any) -> Any:
    yield value


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": ""}, ["Stage: name", "not empty", "got '' (str)"]),
        ({"name": "  "}, ["Stage: name", "not empty"]),
        ({"name": 3}, ["Stage: name", "got 3 (int)"]),
        ({"workers": "3"}, ["workers", WHOLE + " 1", "got '3' (str)", "Write workers=3"]),
        ({"workers": "many"}, ["workers", WHOLE + " 1", "got 'many' (str)"]),
        ({"workers": True}, ["workers", WHOLE, "got True (bool)"]),
        ({"workers": 2.5}, ["workers", WHOLE, "got 2.5 (float)"]),
        ({"workers": 2.0}, ["workers", WHOLE, "got 2.0 (float)", "Write workers=2."]),
        ({"workers": 0}, ["workers", WHOLE + " 1", "got 0 (int)"]),
        ({"workers": -1}, ["workers", WHOLE + " 1", "got -1 (int)"]),
        ({"workers": fetch}, ["workers", "Write tasks=[…]"]),
        ({"workers": [fetch]}, ["workers", "Write tasks=[…]"]),
        ({"workers": Unprintable()}, ["workers", "whose repr() raises", "(Unprintable)"]),
        ({"workers": "x" * 1000}, ["workers", "xxx…"]),
        ({"tasks": []}, ["tasks", "at least one function", "got () (tuple)"]),
        ({"tasks": fetch}, ["tasks", "a list or tuple", "Write tasks=[fetch]."]),
        ({"tasks": "fetch"}, ["tasks", "a list or tuple", "got 'fetch' (str)"]),
        ({"tasks": {fetch}}, ["tasks", "a list or tuple", "(set)"]),
        ({"tasks": None}, ["tasks", "a list or tuple", "got None"]),
        ({"tasks": [fetch, 3]}, ["tasks[1]", "a function", "got 3 (int)"]),
        ({"tasks": [generator]}, ["tasks[0]", "generator function"]),
        ({"tasks": [async_generator]}, ["tasks[0]", "generator function"]),
        (
            {"retry": "per_item"},
            ["retry", "'per_task', 'per_stage', None or a RetryPolicy", "per_item"],
        ),
        ({"retry": 3}, ["retry", "got 3 (int)"]),
        ({"retry": RetryPolicy}, ["retry", "Write retry=RetryPolicy()."]),
        ({"task_attempts": 0}, ["task_attempts", WHOLE + " 1"]),
        ({"stage_attempts": "2"}, ["stage_attempts", WHOLE, "Write stage_attempts=2"]),
        ({"task_wait_seconds": -1}, ["task_wait_seconds", "of at least 0", "got -1 (int)"]),
        ({"task_wait_seconds": "1"}, ["task_wait_seconds", "number", "got '1' (str)"]),
        ({"task_wait_seconds": True}, ["task_wait_seconds", "number", "got True"]),
        ({"task_wait_seconds": math.nan}, ["task_wait_seconds", "finite"]),
        ({"task_wait_seconds": math.inf}, ["task_wait_seconds", "finite"]),
        ({"retry": RetryPolicy(), "task_attempts": 5}, ["task_attempts=5", "RetryPolicy"]),
        ({"on_success": 1}, ["on_success", "a function or None", "got 1"]),
        ({"on_failure": "log"}, ["on_failure", "a function or None"]),
        ({"on_skip": []}, ["on_skip", "a function or None"]),
        ({"skip_if": True}, ["skip_if", "a function or None"]),
        ({"unpack_args": 1}, ["unpack_args", "True or False"]),
        ({"queue_capacity": -1}, ["queue_capacity", WHOLE + " 0, or math.inf", "got -1"]),
        ({"queue_capacity": 1.5}, ["queue_capacity", WHOLE, "got 1.5"]),
        ({"queue_capacity": False}, ["queue_capacity", WHOLE, "got False"]),
        ({"task_timeout": 10**400}, ["task_timeout", "finite"]),
        ({"on_success": generator}, ["on_success", "It contains a yield"]),
        ({"skip_if": async_generator}, ["skip_if", "It contains a yield"]),
        ({"task_timeout": 0}, ["task_timeout", "above 0", "got 0"]),
        ({"task_timeout": "5"}, ["task_timeout", "number"]),
        (
            {"task_concurrency_limits": {"fetsch": 1}},
            ["task_concurrency_limits", "'fetsch'", "Its tasks are 'fetch'"],
        ),
        (
            {"task_concurrency_limits": {"fetch": 0}},
            ["task_concurrency_limits['fetch']", WHOLE + " 1"],
        ),
        (
            {"task_concurrency_limits": {fetch: 1}},
            ["each key of task_concurrency_limits", "Write 'fetch'."],
        ),
        ({"task_concurrency_limits": {1: 1}}, ["each key of task_concurrency_limits", "got 1"]),
        ({"task_concurrency_limits": 5}, ["task_concurrency_limits", "a dict", "got 5"]),
    ],
)
def test_a_bad_argument_is_rejected_with_stage_argument_bound_and_value(
    arguments: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(StageValidationError) as caught:
        stage(**arguments)
    message = str(caught.value)
    if "name" not in arguments:
        assert message.startswith("Stage 'Fetch': ")
    for word in words:
        assert word in message
    assert isinstance(caught.value, (PipelineError, AntFlowError))
    assert isinstance(caught.value, ValueError)


def test_a_call_instead_of_a_function_is_rejected_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            StageValidationError, match=re.escape("Write on_skip=fetch, not on_skip=fetch(…).")
        ):
            stage(on_skip=fetch(1))
        with pytest.raises(
            StageValidationError, match=re.escape("Write tasks=[fetch], not tasks=[fetch(…)].")
        ):
            stage(tasks=[fetch(1)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"scope": "item"}, ["scope", "'task' or 'stage'", "got 'item'"]),
        ({"attempts": 0}, ["attempts", WHOLE + " 1"]),
        ({"attempts": True}, ["attempts", WHOLE, "got True"]),
        ({"on": BaseException}, ["on", "subclasses of it", "BaseException", "KeyboardInterrupt"]),
        ({"on": (ValueError, KeyboardInterrupt)}, ["on", "KeyboardInterrupt"]),
        ({"on": ValueError()}, ["on", "an exception class", "Write on=ValueError."]),
        ({"on": [ValueError]}, ["on", "a tuple"]),
        ({"on": ()}, ["on", "at least one"]),
        ({"on": (len,)}, ["on", "a hook that takes the exception"]),
        ({"on": "ValueError"}, ["on", "got 'ValueError' (str)"]),
        ({"on": fetch}, ["on", "Write def, not async def."]),
        ({"on": Caller()}, ["on", "Write def, not async def."]),
        ({"wait_initial": -1}, ["wait_initial", "at least 0"]),
        ({"wait_jitter": None}, ["wait_jitter", "got None"]),
        ({"wait_initial": 5, "wait_max": 2}, ["wait_max", "at least 5", "wait_initial is 5"]),
        ({"wait_exp_base": 0.5}, ["wait_exp_base", "at least 1"]),
    ],
)
def test_a_bad_retry_policy_is_rejected(arguments: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(StageValidationError) as caught:
        RetryPolicy(**arguments)
    for word in ["RetryPolicy: ", *words]:
        assert word in str(caught.value)


def test_wait_max_may_be_infinite() -> None:
    assert RetryPolicy(wait_max=math.inf).wait_max == math.inf


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"stages": []}, ["stages", "at least one Stage"]),
        ({"stages": stage()}, ["stages", "a list of stages", "Write stages=[stage]."]),
        ({"stages": "Fetch"}, ["stages", "a list of stages"]),
        ({"stages": None}, ["stages", "got None"]),
        ({"stages": [stage(), fetch]}, ["stages[1]", "a Stage", "Write Stage("]),
        ({"stages": [stage(), stage()]}, ["two stages are named 'Fetch'", "stages[1]"]),
        ({"stages": [stage()], "collect_results": 1}, ["collect_results", "True or False"]),
        (
            {"stages": [stage()], "status_tracker": StatusTracker},
            ["status_tracker", "Write status_tracker=StatusTracker()."],
        ),
        ({"stages": [stage()], "collect_results": StatusTracker()}, ["Write status_tracker=…."]),
        ({"stages": [stage()], "status_tracker": 5}, ["status_tracker", "got 5"]),
    ],
)
def test_a_bad_pipeline_is_rejected(arguments: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(StageValidationError) as caught:
        Pipeline(**arguments)
    for word in ["Pipeline: ", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"history": 0}, ["history", WHOLE + " 1"]),
        ({"on_status_change": 5}, ["on_status_change", "a function or None"]),
        ({"on_task_retry": "log"}, ["on_task_retry", "a function or None"]),
        ({"on_failure": 5}, ["on_failure", "a function or None"]),
        ({"on_failure": generator}, ["on_failure", "It contains a yield"]),
        ({"task_concurrency_limits": {"fetch": -1}}, ["task_concurrency_limits['fetch']"]),
    ],
)
def test_a_bad_tracker_is_rejected(arguments: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(StageValidationError) as caught:
        StatusTracker(**arguments)
    for word in ["StatusTracker: ", *words]:
        assert word in str(caught.value)


def test_a_definition_is_frozen_and_copies_its_arguments() -> None:
    tasks = [fetch]
    limits = {"fetch": 1}
    one = Stage("Fetch", tasks=tasks, task_concurrency_limits=limits)
    tasks.clear()
    limits.clear()
    assert one.tasks == (fetch,)
    assert one.task_concurrency_limits == {"fetch": 1}
    with pytest.raises(AttributeError):
        one.workers = 2  # type: ignore[misc]
    pipeline = Pipeline([one])
    with pytest.raises(AttributeError):
        pipeline.stages = ()


def test_the_default_capacity_grows_with_the_workers() -> None:
    assert stage(workers=8).capacity == 128
    assert stage(workers=100).capacity == 200
    assert stage(workers=100, queue_capacity=3).capacity == 3
    assert stage(queue_capacity=math.inf).capacity == math.inf


def test_plain_retry_keywords_make_a_policy() -> None:
    assert stage(task_attempts=5, task_wait_seconds=2).retry_policy == RetryPolicy(
        attempts=5, wait_initial=2, wait_max=2, wait_jitter=0, wait_exp_base=1
    )
    per_stage = stage(retry="per_stage", stage_attempts=2).retry_policy
    assert (per_stage.scope, per_stage.attempts, per_stage.wait_initial) == ("stage", 2, 1.0)
    policy = RetryPolicy(attempts=7)
    assert stage(retry=policy).retry_policy is policy


def test_limits_identify_tasks_by_the_name_of_the_function() -> None:
    class Client:
        async def get(self, value: Any) -> Any:
            return value

    tasks = [
        functools.partial(functools.partial(fetch)),
        Client().get,
        Caller(),
        lambda value: value,
    ]
    limits = {"fetch": 1, "get": 1, "Caller": 1, "<lambda>": 1}
    stage(tasks=tasks, task_concurrency_limits=limits)


def test_the_limits_of_a_tracker_are_a_copy() -> None:
    limits = {"fetch": 1}
    tracker = StatusTracker(task_concurrency_limits=limits)
    limits["fetch"] = 0
    assert tracker.task_concurrency_limits == {"fetch": 1}


def test_the_metadata_of_an_item_is_a_dict() -> None:
    with pytest.raises(TypeError, match="metadata"):
        Item(1, metadata=None)  # type: ignore[arg-type]


def test_an_item_has_no_positional_id() -> None:
    with pytest.raises(TypeError):
        Item(1, 2)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"tasks": [lambda: 1]},
            r"tasks\[0\] must be a function that can be called with \(value\)",
        ),
        ({"tasks": [lambda a, b: 1]}, r"Its signature is \(a, b\)\."),
        ({"on_success": lambda value: 1}, r"on_success must be .* \(item_id, value, payload\)"),
        ({"on_failure": lambda value: 1}, r"on_failure must be .* \(item_id, error, payload\)"),
        ({"on_skip": lambda: 1}, r"on_skip must be .* \(item_id, value, payload\)"),
        ({"skip_if": lambda: 1}, r"skip_if must be .* \(value\)"),
    ],
)
def test_functions_with_other_signatures_are_rejected(
    arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(StageValidationError, match=words):
        Stage("A", **{"tasks": [str], **arguments})
    with pytest.raises(StageValidationError, match=r"on_task_fail must be .* \(event\)"):
        StatusTracker(on_task_fail=lambda: None)
    with pytest.raises(StageValidationError, match=r"on must be .* \(error\)"):
        RetryPolicy(on=lambda: True)  # type: ignore[arg-type, misc]


def test_functions_with_unknown_or_matching_signatures_are_accepted() -> None:
    Stage("A", tasks=[dict, max, int])
    Stage("A", tasks=[lambda a, b=1, *, c=2: a])
    Stage("A", tasks=[lambda a, b: a + b], unpack_args=True)
