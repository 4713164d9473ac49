"""Retries per task and per stage: waits, attempts, events, and the settings of stamina."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from itertools import pairwise
from typing import Any

import anyio
import pytest
import stamina
from anyio.lowlevel import checkpoint

from antflow import (
    AntFlowError,
    Pipeline,
    PipelineError,
    RetryPolicy,
    Stage,
    StageValidationError,
    StatusTracker,
    TaskEvent,
    TaskFailedError,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

SCOPES = ["task", "stage"]


class Flaky:
    """A task that fails a number of times for each value, and records when it was called."""

    __name__ = "flaky"

    def __init__(self, times: int, error: type[Exception] = ValueError) -> None:
        self.times = times
        self.error = error
        self.calls: dict[Any, list[float]] = {}

    async def __call__(self, value: Any) -> Any:
        calls = self.calls.setdefault(value, [])
        calls.append(anyio.current_time())
        await checkpoint()
        if len(calls) <= self.times:
            raise self.error(f"{value}, attempt {len(calls)}")
        return value

    def waits(self, value: Any) -> list[float]:
        calls = self.calls[value]
        return [round(after - before, 6) for before, after in pairwise(calls)]


def with_policy(task: Any, **arguments: Any) -> Pipeline:
    return Pipeline([Stage("A", 1, [task], RetryPolicy(**arguments))])


@pytest.mark.virtual_time
class TestWaits:
    @pytest.mark.parametrize("retry", ["per_task", "per_stage"])
    async def test_waits_are_fixed_with_the_plain_keywords(self, retry: Any) -> None:
        flaky = Flaky(3)
        stage = Stage(
            "A", 1, [flaky], retry, task_attempts=4, stage_attempts=4, task_wait_seconds=2.5
        )
        results = await Pipeline([stage]).run([1])
        assert results.values == [1]
        assert flaky.waits(1) == [2.5, 2.5, 2.5]

    @pytest.mark.parametrize("retry", ["per_task", "per_stage"])
    async def test_a_wait_of_zero_is_allowed(self, retry: Any) -> None:
        flaky = Flaky(2)
        await Pipeline([Stage("A", 1, [flaky], retry, task_wait_seconds=0)]).run([1])
        assert flaky.waits(1) == [0, 0]

    @pytest.mark.parametrize("scope", SCOPES)
    async def test_waits_of_a_policy_grow_up_to_wait_max(self, scope: Any) -> None:
        flaky = Flaky(4)
        pipeline = with_policy(
            flaky,
            scope=scope,
            attempts=5,
            wait_initial=1,
            wait_max=10,
            wait_jitter=0,
            wait_exp_base=3,
        )
        assert (await pipeline.run([1])).values == [1]
        assert flaky.waits(1) == [1, 3, 9, 10]

    async def test_jitter_is_added(self) -> None:
        flaky = Flaky(2)
        await with_policy(flaky, wait_initial=10, wait_jitter=4).run([1])
        first, second = flaky.waits(1)
        assert 10 <= first <= 14
        assert 20 <= second <= 24

    @pytest.mark.parametrize("scope", SCOPES)
    async def test_a_hook_decides_and_may_return_the_wait(self, scope: Any) -> None:
        """A hook can honour a Retry-After header this way."""
        answers = iter([7, dt.timedelta(minutes=1), True, 0.0, False])
        asked: list[str] = []

        def hook(error: Exception) -> Any:
            asked.append(str(error))
            return next(answers)

        flaky = Flaky(99)
        pipeline = with_policy(
            flaky, scope=scope, attempts=9, on=hook, wait_initial=3, wait_max=3, wait_jitter=0
        )
        results = await pipeline.run([1])
        assert flaky.waits(1) == [7, 60, 3, 0]
        assert results.failures[0].attempts == 5
        assert asked == [f"1, attempt {number}" for number in range(1, 6)]

    async def test_the_worker_is_free_during_a_per_stage_back_off(
        self,
    ) -> None:
        flaky = Flaky(1)
        order: list[int] = []

        async def note(value: int) -> int:
            if value == 0:
                await flaky(value)
            order.append(value)
            return value

        stage = Stage("A", 1, [note], "per_stage", task_wait_seconds=3600)
        results = await Pipeline([stage]).run(range(5))
        assert order == [1, 2, 3, 4, 0]
        assert results.values == [0, 1, 2, 3, 4]

    async def test_the_worker_waits_during_a_per_task_back_off(self) -> None:
        order: list[int] = []
        flaky = Flaky(1)

        async def note(value: int) -> int:
            if value == 0:
                await flaky(value)
            order.append(value)
            return value

        stage = Stage("A", 1, [note], "per_task", task_wait_seconds=3600)
        await Pipeline([stage]).run(range(5))
        assert order == [0, 1, 2, 3, 4]

    async def test_limits_are_not_held_during_a_back_off(self) -> None:
        flaky = Flaky(1)

        async def limited(value: int) -> int:
            if value == 0:
                await flaky(value)
            return value

        stage = Stage(
            "A", 2, [limited], task_wait_seconds=60, task_concurrency_limits={"limited": 1}
        )
        done: list[int] = []
        tracker = StatusTracker(on_task_complete=lambda event: done.append(event.item_id))
        await Pipeline([stage], status_tracker=tracker).run(range(4))
        assert done == [1, 2, 3, 0]


class TestAttempts:
    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("attempts", [1, 2, 3])
    async def test_attempts_are_totals(self, scope: Any, attempts: int) -> None:
        flaky = Flaky(99)
        pipeline = with_policy(flaky, scope=scope, attempts=attempts, wait_initial=0, wait_jitter=0)
        results = await pipeline.run(range(5))
        assert {len(calls) for calls in flaky.calls.values()} == {attempts}
        assert {item.attempts for item in results.failures} == {attempts}

    async def test_each_task_has_its_own_attempts(self) -> None:
        first, second = Flaky(2), Flaky(2)
        stage = Stage("A", 1, [first, second], task_wait_seconds=0)
        assert (await Pipeline([stage]).run([1])).values == [1]
        assert (len(first.calls[1]), len(second.calls[1])) == (3, 3)

    async def test_a_stage_starts_over_with_the_first_task_and_the_same_value(self) -> None:
        given: list[int] = []

        async def first(value: int) -> int:
            given.append(value)
            return value + 100

        stage = Stage("A", 1, [first, Flaky(1)], "per_stage", task_wait_seconds=0)
        assert (await Pipeline([stage]).run([1])).values == [101]
        assert given == [1, 1]

    async def test_the_next_stage_counts_from_one(self) -> None:
        attempts: list[tuple[str, int]] = []
        tracker = StatusTracker(
            on_task_complete=lambda event: attempts.append((event.stage, event.attempt))
        )
        policy = RetryPolicy(scope="stage", wait_initial=0, wait_jitter=0)
        stages = [Stage("A", 1, [Flaky(2)], policy), Stage("B", 1, [Flaky(1)], policy)]
        await Pipeline(stages, status_tracker=tracker).run([1])
        assert attempts == [("A", 3), ("B", 2)]

    @pytest.mark.parametrize("scope", SCOPES)
    async def test_only_the_errors_that_the_policy_names_are_retried(self, scope: Any) -> None:
        for error, calls in [(KeyError, 1), (OSError, 3), (ConnectionError, 3)]:
            flaky = Flaky(99, error)
            pipeline = with_policy(
                flaky, scope=scope, on=(OSError, ValueError), wait_initial=0, wait_jitter=0
            )
            await pipeline.run([1])
            assert len(flaky.calls[1]) == calls

    @pytest.mark.parametrize("scope", SCOPES)
    async def test_a_hook_that_raises_fails_the_item_with_its_own_error(self, scope: Any) -> None:
        def hook(error: Exception) -> bool:
            raise LookupError("broken hook")

        results = await with_policy(Flaky(9), scope=scope, on=hook).run([1])
        (failure,) = results.failures
        assert failure.error == "broken hook"
        assert isinstance(failure.exception, LookupError)
        assert isinstance(failure.exception.__context__, ValueError)

    @pytest.mark.parametrize("verdict", [None, "1", float("nan")])
    async def test_a_hook_that_returns_something_else_fails_the_item_with_a_hint(
        self, verdict: Any
    ) -> None:
        results = await with_policy(Flaky(9), on=lambda error: verdict).run([1])
        (failure,) = results.failures
        assert failure.attempts == 1
        assert "must return True, False, or the seconds to wait" in failure.error
        assert f"got {verdict!r}." in failure.error
        assert failure.exception is not None
        assert str(failure.exception.__context__) == "1, attempt 1"

    @pytest.mark.parametrize("wait", [-5, dt.timedelta(seconds=-5)])
    async def test_a_negative_wait_from_a_hook_means_no_wait(self, wait: Any) -> None:
        flaky = Flaky(2)
        results = await with_policy(flaky, on=lambda error: wait, wait_initial=9).run([1])
        assert results.values == [1]

    async def test_the_last_error_is_kept_without_earlier_ones_as_context(self) -> None:
        results = await Pipeline([Stage("A", 1, [Flaky(9)], task_wait_seconds=0)]).run([1])
        error = results.failures[0].exception
        assert str(error) == "1, attempt 3"
        assert error is not None
        assert error.__context__ is None


class TestStamina:
    @pytest.mark.parametrize("scope", SCOPES)
    async def test_set_active_false_disables_retries(self, scope: Any) -> None:
        stamina.set_active(False)
        flaky = Flaky(1)
        results = await with_policy(flaky, scope=scope).run([1])
        assert results.failures[0].attempts == len(flaky.calls[1]) == 1

    @pytest.mark.virtual_time
    @pytest.mark.parametrize("scope", SCOPES)
    async def test_set_active_false_during_a_back_off_allows_one_more_attempt(
        self, scope: Any
    ) -> None:
        """stamina reads the setting when a context starts, so the pending attempt is still made."""
        flaky = Flaky(9)
        pipeline = with_policy(flaky, scope=scope, wait_initial=10, wait_max=10, wait_jitter=0)
        async with anyio.create_task_group() as group:
            group.start_soon(pipeline.run, [1])
            await anyio.sleep(5)
            stamina.set_active(False)
        assert pipeline.failures[0].attempts == len(flaky.calls[1]) == 2

    @pytest.mark.virtual_time
    @pytest.mark.parametrize("scope", SCOPES)
    async def test_test_mode_sets_the_attempts_and_disables_waits(self, scope: Any) -> None:
        for attempts, cap, expected in [(1, False, 1), (5, False, 5), (2, True, 2), (9, True, 3)]:
            flaky = Flaky(99)
            events: list[str] = []
            began = anyio.current_time()
            with stamina.set_testing(True, attempts=attempts, cap=cap):
                pipeline = with_policy(flaky, scope=scope, attempts=3)
                pipeline.events.subscribe(
                    TaskEvent, lambda event, events=events: events.append(event.event_type)
                )
                results = await pipeline.run([1])
            assert anyio.current_time() == began
            assert results.failures[0].attempts == len(flaky.calls[1]) == expected
            assert events == ["start", "retry"] * (expected - 1) + ["start", "fail"]

    async def test_in_test_mode_a_hook_can_still_prevent_retries(self) -> None:
        with stamina.set_testing(True, attempts=9):
            flaky = Flaky(99)
            await with_policy(flaky, on=lambda error: "attempt 2" not in str(error)).run([1])
        assert len(flaky.calls[1]) == 2

    @pytest.mark.parametrize("scope", SCOPES)
    async def test_retry_hooks_of_stamina_receive_the_name_of_the_task_or_stage(
        self, scope: Any
    ) -> None:
        details: list[Any] = []
        stamina.instrumentation.set_on_retry_hooks([details.append])
        pipeline = with_policy(Flaky(2), scope=scope, wait_initial=0, wait_jitter=0)
        await pipeline.run([1])
        assert [detail.retry_num for detail in details] == [1, 2]
        assert {detail.name for detail in details} == {"flaky" if scope == "task" else "A"}
        assert [str(detail.caused_by) for detail in details] == ["1, attempt 1", "1, attempt 2"]

    @pytest.mark.parametrize("testing", [True, False])
    @pytest.mark.parametrize("scope", SCOPES)
    async def test_an_error_in_a_retry_hook_of_stamina_fails_the_item(
        self, scope: Any, testing: bool
    ) -> None:
        def broken(details: Any) -> None:
            raise LookupError("broken hook")

        stamina.instrumentation.set_on_retry_hooks([broken])
        with stamina.set_testing(testing, attempts=3):
            pipeline = with_policy(Flaky(2), scope=scope, wait_initial=0)
            events: list[str] = []
            pipeline.events.subscribe(TaskEvent, lambda event: events.append(event.event_type))
            results = await pipeline.run([1])
        assert [failure.error for failure in results.failures] == ["broken hook"]
        if scope == "task":
            assert events[-1] == "fail"

    @pytest.mark.parametrize("scope", SCOPES)
    async def test_the_attempts_of_test_mode_hold_although_it_ends_between_two_of_them(
        self, scope: Any
    ) -> None:
        stamina.set_testing(True, attempts=2)
        flaky = Flaky(9)

        async def leave_test_mode(value: int) -> None:
            try:
                await flaky(value)
            finally:
                if len(flaky.calls[value]) == 2:
                    stamina.set_testing(False)

        results = await with_policy(leave_test_mode, scope=scope, wait_initial=0).run([1])
        assert results.failures[0].attempts == len(flaky.calls[1]) == 2
        assert results.failures[0].error == "1, attempt 2"


class TestEvents:
    @pytest.mark.virtual_time
    async def test_each_attempt_of_a_task_has_its_events_and_durations(self) -> None:
        calls = 0

        async def task(value: int) -> int:
            nonlocal calls
            calls += 1
            if calls < 3:
                raise ValueError(calls)
            return value

        events: list[TaskEvent] = []
        tracker = StatusTracker(
            on_task_start=events.append,
            on_task_complete=events.append,
            on_task_retry=events.append,
            on_task_fail=events.append,
        )
        await Pipeline([Stage("A", 1, [task])], status_tracker=tracker).run(["x"])
        assert [(event.event_type, event.attempt) for event in events] == [
            ("start", 1),
            ("retry", 1),
            ("start", 2),
            ("retry", 2),
            ("start", 3),
            ("complete", 3),
        ]
        for event in events:
            assert (event.item_id, event.stage, event.task_name) == (0, "A", "task")
            assert event.worker == "A-W0"
            assert (event.duration is None) == (event.event_type == "start")
            assert (event.error is None) == (event.event_type != "retry")
        assert all(event.duration is None or event.duration >= 0 for event in events)
        times = [event.timestamp for event in events]
        assert times == sorted(times)

    @pytest.mark.virtual_time
    @pytest.mark.parametrize("scope", SCOPES)
    async def test_a_retry_event_is_published_before_the_wait(self, scope: Any) -> None:
        published: list[float] = []
        began = anyio.current_time()
        pipeline = with_policy(Flaky(1), scope=scope, wait_initial=60, wait_jitter=0)

        def note(event: TaskEvent) -> None:
            if event.event_type == "retry":
                published.append(anyio.current_time() - began)

        pipeline.events.subscribe(TaskEvent, note)
        await pipeline.run([1])
        assert published == [0]

    async def test_a_retrying_event_has_the_number_of_the_next_attempt(self) -> None:
        tracker = StatusTracker()
        policy = RetryPolicy(scope="stage", wait_initial=0, wait_jitter=0)
        await Pipeline([Stage("A", 1, [Flaky(9)], policy)], status_tracker=tracker).run([1])
        history = tracker.get_history(0)
        retrying = [event.metadata for event in history if event.status == "retrying"]
        assert retrying == [
            {"error": "1, attempt 1", "error_type": "ValueError", "attempt": 2, "retry": 1},
            {"error": "1, attempt 2", "error_type": "ValueError", "attempt": 3, "retry": 2},
        ]
        assert history[-1].metadata == {
            "error": "1, attempt 3",
            "error_type": "ValueError",
            "task_name": "flaky",
            "attempts": 3,
        }

    async def test_a_subscription_during_an_attempt_takes_effect_at_the_next(self) -> None:
        events: list[tuple[str, int]] = []
        pipeline: Pipeline

        def note(event: TaskEvent) -> None:
            events.append((event.event_type, event.attempt))

        async def task(value: int) -> int:
            if not pipeline.events.task_subscriptions:
                pipeline.events.subscribe(TaskEvent, note)
                raise ValueError
            return value

        pipeline = Pipeline([Stage("A", 1, [task], task_wait_seconds=0)])
        await pipeline.run([1])
        assert events == [("start", 2), ("complete", 2)]


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
async def test_a_stray_cancellation_in_a_retry_hook_fails_its_item_only(retry: Any) -> None:
    """The failure names the task that was to be retried."""

    def hook(details: Any) -> None:
        raise anyio.get_cancelled_exc_class()

    async def first(value: int) -> int:
        return value

    async def second(value: int) -> int:
        if value == 1:
            raise ValueError(value)
        return value

    if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        pytest.skip("only trio itself can create its Cancelled")
    stamina.instrumentation.set_on_retry_hooks([hook])
    results = await Pipeline([Stage("A", 1, [first, second], retry)]).run(range(3))
    assert results.values == [0, 2]
    (failed,) = results.failures
    assert (failed.task_name, failed.error_type) == ("second", "CancelledError")


class TestNoRetry:
    async def test_none_means_one_attempt(self) -> None:
        flaky = Flaky(1)
        results = await Pipeline([Stage("A", 1, [flaky], retry=None)]).run([1])
        assert [failure.attempts for failure in results.failures] == [1]
        assert len(flaky.calls[1]) == 1

    async def test_none_means_one_attempt_in_test_mode_too(self) -> None:
        flaky = Flaky(1)
        with stamina.set_testing(True, attempts=5):
            results = await Pipeline([Stage("A", 1, [flaky], retry=None)]).run([1])
        assert len(results.failures) == len(flaky.calls[1]) == 1

    @pytest.mark.parametrize(
        "keyword", [{"task_attempts": 5}, {"stage_attempts": 5}, {"task_wait_seconds": 5}]
    )
    def test_keywords_without_effect_are_refused(self, keyword: Any) -> None:
        with pytest.raises(StageValidationError, match=r"no effect beside retry=None\. Leave it"):
            Stage("A", 1, [Flaky(0)], retry=None, **keyword)


FAILED = TaskFailedError("of an inner pipeline")
USED = PipelineError("wrong use")
LOST = ConnectionError("lost")
BOTH = ExceptionGroup("both", [LOST, ExceptionGroup("inner", [FAILED])])


class TestErrorsOfAntflow:
    """A task that uses antflow wrongly uses it as wrongly the next time."""

    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize(
        ("on", "error", "is_retried"),
        [
            (Exception, USED, False),
            (Exception, FAILED, False),
            (Exception, StageValidationError("a ValueError as well"), False),
            (ValueError, StageValidationError("a ValueError as well"), False),
            (Exception, BOTH, False),
            (ExceptionGroup, BOTH, False),
            ((ExceptionGroup, PipelineError), BOTH, False),
            ((ConnectionError, TaskFailedError), BOTH, True),
            ((ExceptionGroup, TaskFailedError), BOTH, True),
            (TaskFailedError, BOTH, False),
            (lambda error: True, USED, False),
            (lambda error: 0.0, BOTH, False),
            (PipelineError, USED, True),
            ((OSError, AntFlowError), USED, True),
            ((OSError, AntFlowError), LOST, True),
            ((OSError, TaskFailedError), USED, False),
        ],
    )
    async def test_are_retried_only_if_the_policy_names_them(
        self, scope: Any, on: Any, error: Exception, is_retried: bool
    ) -> None:
        async def fail(value: int) -> None:
            raise error

        policy = RetryPolicy(
            scope=scope, on=on, attempts=2, wait_initial=0, wait_max=0, wait_jitter=0
        )
        (failure,) = (await Pipeline([Stage("A", 1, [fail], retry=policy)]).run([1])).failures
        assert failure.exception is error
        assert failure.attempts == 1 + is_retried

    async def test_are_not_retried_by_default(self) -> None:
        async def fail(value: int) -> None:
            raise USED

        for retry in ("per_task", "per_stage"):
            (failure,) = (await Pipeline([Stage("A", 1, [fail], retry=retry)]).run([1])).failures
            assert failure.attempts == 1
