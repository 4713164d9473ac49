"""Tasks that fail or wait on purpose, as users build them for their tests."""

from __future__ import annotations

import functools
import math
from typing import Any

import anyio
import pytest

from antflow import Pipeline, PipelineResult, RetryPolicy, Stage, StageValidationError
from antflow.testing import EventLog, assert_promises, failing, flaky, slow

AT_ONCE = {"task_wait_seconds": 0}


async def fetch(value: Any) -> Any:
    return value, "fetched"


def parse(value: Any) -> Any:
    return value, "parsed"


async def attempts(task: Any, value: Any) -> list[Any]:
    """Call *task* until it succeeds; return the error messages, and the value in a tuple."""
    outcomes: list[Any] = []
    while not outcomes or isinstance(outcomes[-1], str):
        try:
            outcomes.append((await task(value),))
        except Exception as error:
            outcomes.append(str(error))
    return outcomes


@pytest.mark.parametrize("value", [1, "text", [1], {"a": [1]}, None, math.nan])
async def test_flaky_fails_the_first_attempts_of_each_value(value: Any) -> None:
    task = flaky()
    first, second, last = await attempts(task, value)
    assert first.startswith("planned failure 1 of 2: ")
    assert second.startswith("planned failure 2 of 2: ")
    assert last[0] is value


async def test_flaky_recognizes_an_unhashable_value_that_is_rebuilt() -> None:
    task = flaky(times=1)
    with pytest.raises(ConnectionError):
        await task([1])
    assert await task([1]) == [1]


async def test_flaky_recognizes_a_value_without_hash_and_repr_by_its_identity() -> None:
    class Bad(list[int]):
        def __repr__(self) -> str:
            raise ValueError

    task, bad = flaky(times=1), Bad()
    with pytest.raises(ConnectionError):
        await task(bad)
    assert await task(bad) is bad


async def test_flaky_distinguishes_equal_values_of_different_types() -> None:
    task = flaky(times=1)
    for value in (1, True, 1.0):
        with pytest.raises(ConnectionError):
            await task(value)


async def test_flaky_behaves_the_same_in_each_run() -> None:
    pipeline = Pipeline([Stage("A", 3, [flaky(fetch)], **AT_ONCE)])
    for _ in range(2):
        log = EventLog(pipeline)
        results = await pipeline.run(log.source([1, [2], 3]))
        assert results.values == [(1, "fetched"), ([2], "fetched"), (3, "fetched")]
        assert len([event for event in log.task_events if event.event_type == "retry"]) == 6
        log.close()


def test_flaky_starts_its_counts_again_in_each_event_loop() -> None:
    task = flaky(times=2)

    async def once() -> str:
        with pytest.raises(ConnectionError) as caught:
            await task(1)
        return str(caught.value)

    for backend in ("asyncio", "trio"):
        assert anyio.run(once, backend=backend).startswith("planned failure 1 of 2")


async def test_flaky_calls_a_function_for_the_number_of_failures() -> None:
    task = flaky(times=lambda value: value)
    assert [len(await attempts(task, value)) for value in (0, 1, 3)] == [1, 2, 4]


async def test_failing_fails_every_attempt_of_the_chosen_items() -> None:
    pipeline = Pipeline(
        [Stage("A", 2, [failing(KeyError, fetch, when=lambda v: v > 1)], **AT_ONCE)]
    )
    results = await pipeline.run(range(4))
    assert results.values == [(0, "fetched"), (1, "fetched")]
    assert [(failed.value, failed.attempts) for failed in results.failures] == [(2, 3), (3, 3)]
    with pytest.raises(ValueError, match="planned failure of every attempt: 5"):
        await failing()(5)


async def test_an_error_may_be_made_from_the_value() -> None:
    with pytest.raises(KeyError, match="7"):
        await flaky(error=KeyError)(7)
    with pytest.raises(OSError, match="no 7"):
        await flaky(error=lambda value: OSError(f"no {value}"))(7)
    task = failing(lambda value: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match=r"error\(7\) must return an exception, got None"):
        await task(7)


@pytest.mark.virtual_time
async def test_slow_sleeps_for_a_number_a_sequence_or_a_function_of_the_value() -> None:
    async def seconds(task: Any, *values: float) -> list[float]:
        times = []
        for value in values:
            began = anyio.current_time()
            assert await task(value) == value
            times.append(anyio.current_time() - began)
        return times

    assert await seconds(slow(2.5), 1, 1) == [2.5, 2.5]
    assert await seconds(slow([1, 0, 5]), 1, 1, 1, 1) == [1, 0, 5, 1]
    assert await seconds(slow(lambda value: 2 * value), 1, 3) == [2, 6]
    with anyio.move_on_after(3600) as scope:
        await slow(math.inf)(1)
    assert scope.cancelled_caught
    with pytest.raises(StageValidationError, match=r"slow\(\): delay\(-1\) must be a number of at"):
        await slow(lambda value: value)(-1)


@pytest.mark.parametrize(
    "build", [flaky, functools.partial(failing, KeyError), functools.partial(slow, 0)]
)
async def test_builders_keep_the_name_of_the_wrapped_task(build: Any) -> None:
    name = getattr(build, "func", build).__name__
    assert build().__name__ == name
    assert build(fetch).__name__ == build(functools.partial(fetch)).__name__ == "fetch"
    assert build(build(fetch)).__name__ == "fetch"


@pytest.mark.parametrize("task", [parse, lambda value: fetch(value)])
async def test_plain_tasks_are_called_as_a_stage_calls_them(task: Any) -> None:
    value, word = await slow(0, task)(1)
    assert (value, word) in [(1, "parsed"), (1, "fetched")]


async def test_builders_keep_the_signature_of_the_wrapped_task() -> None:
    async def add(left: int, right: int) -> int:
        return left + right

    policy = RetryPolicy(wait_initial=0, wait_jitter=0)
    pipeline = Pipeline([Stage("A", 1, [flaky(add)], policy, unpack_args=True)])
    results = await pipeline.run([(1, 2), {"left": 3, "right": 4}])
    assert results.values == [3, 7]
    with pytest.raises(StageValidationError, match="Its signature is"):
        Stage("A", 1, [flaky(add)])


async def test_a_run_with_all_builders_keeps_the_promises() -> None:
    pipeline = Pipeline(
        [
            Stage("A", 3, [slow([0, 0]), flaky(fetch, times=1)], "per_stage", **AT_ONCE),
            Stage("B", 1, [failing(when=lambda value: value[0] % 3 == 0), flaky()], **AT_ONCE),
        ]
    )
    log = EventLog(pipeline)
    results: list[PipelineResult] = await pipeline.run(log.source(range(20)))
    assert_promises(log, results)
    assert len(results) == 13


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: flaky(3), r"flaky\(\): task must be a function or None, got 3.*flaky\(times=…\)"),
        (lambda: flaky(times=-1), "flaky.*: times must be a whole number of at least 0, got -1"),
        (lambda: flaky(times=1.0), "Write times=1"),
        (lambda: flaky(times=fetch), "times must be a plain function of the value"),
        (lambda: flaky(error=ValueError("x")), "error=ValueError, or error=lambda value: ValueE"),
        (lambda: flaky(error=int), "error must be an exception class or a function, got <class"),
        (lambda: flaky(error="x"), "error must be a plain function of the value, got 'x'"),
        (lambda: failing(fetch), r"Write failing\(error, task\)"),
        (lambda: failing(KeyError, 3), r"Write failing\(error, task, when=…\)"),
        (lambda: failing(when=True), "when must be a plain function of the value, got True"),
        (lambda: failing(when=lambda: True), "when must be a function that can be called with"),
        (lambda: slow(fetch), r"delay must be a plain function.*Write slow\(seconds, task\)"),
        (lambda: slow(fetch, 1), r"task must be a function or None.*Write slow\(seconds, task\)"),
        (lambda: slow([]), "delay must be at least one number of seconds"),
        (lambda: slow([1, -1]), r"delay\[1\] must be a number of at least 0, got -1"),
        (lambda: slow(-1), "slow.*: delay must be a number of at least 0, got -1"),
        (lambda: slow("1"), "delay must be a number"),
    ],
)
def test_arguments_are_checked_when_the_task_is_built(build: Any, message: str) -> None:
    with pytest.raises(StageValidationError, match=message):
        build()


async def test_the_class_of_a_returned_value_is_not_read() -> None:
    class Shy:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("__class__ was read")

    shy = Shy()
    assert await slow(0, lambda value: shy)(1) is shy
