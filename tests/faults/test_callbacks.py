"""Rows 18 and 19: callbacks that raise, and callbacks that are slow."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st

from antflow import Pipeline, RetryPolicy, Stage, StatusEvent, StatusTracker, TaskEvent
from antflow.testing import Decision, EventLog, assert_promises, cancel, explore
from faults.kit import at_each_step, both_backends, explored, no_leaked_tasks, row

COUNTED = "Callbacks that raise: errors are counted, logged once per callback, and affect no item"
FATAL = "Callbacks that raise a BaseException end the run, and nothing leaks"
SLOW = "Slow async callbacks: order is kept, and no item or event is lost"

# The callbacks and subscribers, by the names that `observed` takes.
TRACKER_CALLBACKS = ["status", "start", "complete", "retry", "fail", "success", "failure"]
STAGE_CALLBACKS = ["stage_success", "stage_failure", "stage_skip"]
SUBSCRIBERS = ["bus_status", "bus_task"]
CALLBACKS = TRACKER_CALLBACKS + STAGE_CALLBACKS + SUBSCRIBERS

COUNT = 4

Handler = Callable[..., Any]


class OddError(Exception):
    """Raised by the tasks and callbacks of this module."""


async def fail_odd(value: int) -> int:
    await checkpoint()
    if value % 2:
        raise OddError(value)
    return value


async def same(value: int) -> int:
    await checkpoint()
    return value


def observed(
    handlers: dict[str, Handler], scope: Any = "task", workers: int = 2, capacity: int = 1
) -> Pipeline:
    """
    Return a pipeline that calls *handlers* when something happens to an item.

    In the first stage, odd values fail in both attempts. In the last stage, multiples of 4 are
    skipped. So of the values 0 to 3, two fail, one is skipped, and one passes both stages.
    """
    tracker = StatusTracker(
        handlers.get("status"),
        *(handlers.get(kind) for kind in ("start", "complete", "retry", "fail")),
        on_success=handlers.get("success"),
        on_failure=handlers.get("failure"),
    )
    stage_arguments: dict[str, Any] = {
        "on_success": handlers.get("stage_success"),
        "on_failure": handlers.get("stage_failure"),
        "on_skip": handlers.get("stage_skip"),
        "queue_capacity": capacity,
    }
    policy = RetryPolicy(scope=scope, attempts=2, wait_initial=1, wait_jitter=0)
    pipeline = Pipeline(
        [
            Stage("A", workers, [fail_odd], policy, **stage_arguments),
            Stage("B", workers, [same], skip_if=lambda value: value % 4 == 0, **stage_arguments),
        ],
        status_tracker=tracker,
    )
    if "bus_status" in handlers:
        pipeline.events.subscribe(StatusEvent, handlers["bus_status"])
    if "bus_task" in handlers:
        pipeline.events.subscribe(TaskEvent, handlers["bus_task"])
    return pipeline


async def process(pipeline: Pipeline, how: str, items: Any) -> None:
    """Process *items* by `run()`, `stream()` or `feed()`."""
    if how == "run":
        await pipeline.run(items)
    elif how == "stream":
        async with pipeline.stream(items) as results:
            async for _ in results:
                pass
    else:
        async with pipeline:
            await pipeline.feed(items)


# The number of calls for the values 0 to 3: two fail in the second attempt, one is skipped.
CALLS = {
    "start": 4 + 2 + 1,
    "complete": 2 + 1,
    "retry": 2,
    "fail": 2,
    "success": 2,
    "failure": 2,
    "stage_success": 2 + 1,
    "stage_failure": 2,
    "stage_skip": 1,
    "bus_task": 7 + 3 + 2 + 2,
}
# Queued, in progress, completed, failed, skipped. A per-stage retry adds two `retrying` events
# and two more `in_progress` events.
STATUSES = {"task": 6 + 6 + 3 + 2 + 1, "stage": 6 + 8 + 3 + 2 + 1 + 2}


def calls_of(scope: str) -> dict[str, int]:
    return {**CALLS, "status": STATUSES[scope], "bus_status": STATUSES[scope]}


@row(18, COUNTED)
@explored(
    2,
    raises=st.dictionaries(st.sampled_from(CALLBACKS), st.booleans(), min_size=1),
    scope=st.sampled_from(["task", "stage"]),
    workers=st.integers(1, 3),
)
def test_errors_of_callbacks_are_counted_and_affect_no_item(
    backend: str,
    schedule: list[Decision],
    caplog: pytest.LogCaptureFixture,
    raises: dict[str, bool],
    scope: str,
    workers: int,
) -> None:
    """*raises* contains the callbacks that raise; True means that the callback is async."""

    def broken(name: str) -> Handler:
        def fail_at_once(*args: Any) -> None:
            raise OddError(f"the callback {name}")

        async def fail_later(*args: Any) -> None:
            await checkpoint()
            raise OddError(f"the callback {name}")

        return fail_later if raises[name] else fail_at_once

    caplog.clear()
    pipeline = observed({name: broken(name) for name in raises}, scope, workers)
    log = EventLog(pipeline)

    async def main() -> None:
        async with no_leaked_tasks():
            results = await pipeline.run(log.source(range(COUNT)))
        assert results.values == [0, 2]
        assert_promises(log, results)

    explore(main, backend=backend, schedule=schedule)
    calls = calls_of(scope)
    assert pipeline.status_tracker is not None
    counted = sum(calls[name] for name in raises if name not in SUBSCRIBERS)
    assert pipeline.status_tracker.callback_errors == counted
    for name, subscriptions in (
        ("bus_status", pipeline.events.status_subscriptions),
        ("bus_task", pipeline.events.task_subscriptions),
    ):
        # The tracker's own subscriptions, with names like on_status_change, are on the same bus.
        errors = sum(each.errors for each in subscriptions if not each.name.startswith("on_"))
        assert errors == (calls[name] if name in raises else 0)
    # Once for each callback. Two stages have successful items, and each has its own on_success.
    assert {(record.name, record.levelno) for record in caplog.records} == {
        ("antflow", logging.ERROR),
        # These are the retries.
        ("antflow", logging.WARNING),
    }
    logged = Counter(str(record.exc_info[1]) for record in caplog.records if record.exc_info)
    assert logged == {f"the callback {name}": 1 + (name == "stage_success") for name in raises}


class EmptyError(Exception):
    """An exception whose truth value is False."""

    def __bool__(self) -> bool:
        return False


class UndecidedError(Exception):
    """An exception that has no truth value."""

    def __bool__(self) -> bool:
        raise OddError("no truth")


def truth_of(value: object) -> bool | None:
    try:
        return bool(value)
    except OddError:
        return None


class Records(logging.Handler):
    """Keeps the log records, without formatting them."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)


@row(18, COUNTED)
@pytest.mark.parametrize(("kind", "truth_value"), [(EmptyError, False), (UndecidedError, None)])
async def test_an_error_of_a_callback_is_logged_whatever_its_truth_value(
    kind: type[Exception], truth_value: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = []

    def broken(*args: Any) -> None:
        errors.append(kind())
        raise errors[-1]

    records = Records()
    logger = logging.getLogger("antflow")
    monkeypatch.setattr(logger, "handlers", [records])
    # No other handler gets the record: it might evaluate the exception.
    monkeypatch.setattr(logger, "propagate", False)
    tracker = StatusTracker(on_success=broken)
    pipeline = Pipeline([Stage("A", 2, [same])], status_tracker=tracker)
    assert (await pipeline.run(range(5))).values == list(range(5))
    assert tracker.callback_errors == len(errors) == 5
    (record,) = records.kept
    assert record.exc_info is not None
    assert record.exc_info[1] is errors[0]
    assert record.exc_info[2] is not None
    assert truth_of(errors[0]) is truth_value


class Fatal(BaseException):
    """Not an `Exception`: it ends the run instead of failing an item."""


@row(18, FATAL)
@explored(
    2,
    name=st.sampled_from(CALLBACKS),
    call=st.integers(1, 3),
    awaits=st.booleans(),
    kind=st.sampled_from([Fatal, GeneratorExit]),
    how=st.sampled_from(["run", "stream", "feed"]),
    scope=st.sampled_from(["task", "stage"]),
)
def test_a_base_exception_of_a_callback_ends_the_run(
    backend: str,
    schedule: list[Decision],
    name: str,
    call: int,
    awaits: bool,
    kind: type[BaseException],
    how: str,
    scope: str,
) -> None:
    """The exception is raised in call number *call*, if there are as many calls."""
    raised: list[BaseException] = []
    calls = 0

    def fatal_at_once(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raised.append(kind(name))
            raise raised[0]

    async def fatal_later(*args: Any) -> None:
        await checkpoint()
        fatal_at_once(*args)

    pipeline = observed({name: fatal_later if awaits else fatal_at_once}, scope)
    log = EventLog(pipeline)

    async def main() -> None:
        async with no_leaked_tasks():
            if call > calls_of(scope)[name]:
                await process(pipeline, how, log.source(range(COUNT)))
                assert not raised
                return
            with pytest.raises(kind) as caught:
                await process(pipeline, how, log.source(range(COUNT)))
            assert caught.value is raised[0]
        assert_promises(log, complete=False)
        log.close()
        stats = pipeline.get_stats()
        assert stats.items_in_flight == 0
        if how != "stream":
            # State changes precede callbacks: an item that is counted has its outcome, even if its
            # callback was never called.
            assert len(pipeline.results) == stats.items_processed
            assert len(pipeline.failures) == stats.items_failed
        # The pipeline can run again.
        with EventLog(pipeline) as again:
            results = await pipeline.run(again.source(range(COUNT)))
            assert results.values == [0, 2]
            assert_promises(again, results)

    explore(main, backend=backend, schedule=schedule)


@row(19, SLOW)
@explored(
    2,
    slow=st.dictionaries(st.sampled_from(CALLBACKS), st.integers(0, 3), min_size=1),
    scope=st.sampled_from(["task", "stage"]),
    workers=st.integers(1, 3),
    capacity=st.integers(0, 2),
    how=st.sampled_from(["run", "stream", "ordered"]),
)
def test_slow_callbacks_keep_the_order_and_lose_nothing(
    backend: str,
    schedule: list[Decision],
    slow: dict[str, int],
    scope: str,
    workers: int,
    capacity: int,
    how: str,
) -> None:
    """*slow* contains the slow callbacks: n means that every (n + 1)-th call does not sleep."""
    begun: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    statuses: dict[Any, list[tuple[str, str]]] = {}

    def takes_time(name: str) -> Handler:
        async def callback(*args: Any) -> None:
            begun[name] += 1
            await anyio.sleep(10 * (begun[name] % (slow[name] + 1)))
            ended[name] += 1
            if name == "status":
                statuses.setdefault(args[0].item_id, []).append((args[0].stage, args[0].status))

        return callback

    pipeline = observed({name: takes_time(name) for name in slow}, scope, workers, capacity)
    log = EventLog(pipeline)
    calls = calls_of(scope)

    async def main() -> None:
        async with no_leaked_tasks():
            if how == "run":
                results = await pipeline.run(log.source(range(COUNT)))
                assert results.values == [0, 2]
                assert_promises(log, results)
                return
            stream = pipeline.stream(log.source(range(COUNT)), ordered=how == "ordered")
            async with stream as taken:
                numbers = [result.sequence_id async for result in log.sink(taken)]
        assert sorted(numbers) == list(range(COUNT))
        if how == "ordered":
            assert numbers == list(range(COUNT))
        assert_promises(log)

    explore(main, backend=backend, schedule=schedule)
    # The run waited for every callback that had started.
    assert begun == ended == {name: calls[name] for name in slow}
    assert pipeline.status_tracker is not None
    assert pipeline.status_tracker.callback_errors == 0
    for item_id, seen in statuses.items():
        assert seen == [
            (event.stage, event.status)
            for event in log.of(item_id)
            if isinstance(event, StatusEvent)
        ]


@row(19, SLOW)
@both_backends
@pytest.mark.parametrize("name", ["status", "success", "failure", "stage_success", "stage_skip"])
def test_a_run_with_slow_callbacks_can_be_cancelled_at_any_step(backend: str, name: str) -> None:
    async def callback(*args: Any) -> None:
        await anyio.sleep(10)

    async def main() -> None:
        pipeline = observed({name: callback})
        log = EventLog(pipeline)
        try:
            async with no_leaked_tasks():
                await pipeline.run(log.source(range(COUNT)))
        finally:
            assert_promises(log, complete=False)
            stats = pipeline.get_stats()
            assert len(pipeline.results) == stats.items_processed
            assert len(pipeline.failures) == stats.items_failed
            assert stats.items_in_flight == 0

    for exploration in at_each_step(backend, main, cancel):
        exploration.run(main)
