"""Rows 18 and 19: callbacks that raise, and callbacks that take their time."""

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
from faults.kit import at_each_step, both, explored, no_task_left, row

COUNTED = "Callbacks that raise an Exception are counted, logged once, and harm no item"
FATAL = "Callbacks that raise a BaseException end the run, which leaves nothing behind"
SLOW = "Slow async callbacks: order is kept, nothing is lost"

# All that can be called back, by the name under which `observed` takes it.
TRACKER = ["status", "start", "complete", "retry", "fail", "success", "failure"]
OF_STAGE = ["stage_success", "stage_failure", "stage_skip"]
BUS = ["bus_status", "bus_task"]
SLOTS = TRACKER + OF_STAGE + BUS

COUNT = 4

Handler = Callable[..., Any]


class OddError(Exception):
    """What the tasks here raise for odd values."""


async def refuse_odd(value: int) -> int:
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
    Return a pipeline that calls *handlers* back, for whatever can happen to an item.

    Odd values fail in the first stage, at the second attempt; those that 4 divides are skipped in
    the last. So of 0 to 3 two fail, one is skipped, and one takes the whole way.
    """
    tracker = StatusTracker(
        handlers.get("status"),
        *(handlers.get(kind) for kind in ("start", "complete", "retry", "fail")),
        on_success=handlers.get("success"),
        on_failure=handlers.get("failure"),
    )
    of_stage: dict[str, Any] = {
        "on_success": handlers.get("stage_success"),
        "on_failure": handlers.get("stage_failure"),
        "on_skip": handlers.get("stage_skip"),
        "queue_capacity": capacity,
    }
    policy = RetryPolicy(scope=scope, attempts=2, wait_initial=1, wait_jitter=0)
    pipeline = Pipeline(
        [
            Stage("A", workers, [refuse_odd], policy, **of_stage),
            Stage("B", workers, [same], skip_if=lambda value: value % 4 == 0, **of_stage),
        ],
        status_tracker=tracker,
    )
    if "bus_status" in handlers:
        pipeline.events.subscribe(StatusEvent, handlers["bus_status"])
    if "bus_task" in handlers:
        pipeline.events.subscribe(TaskEvent, handlers["bus_task"])
    return pipeline


async def take(pipeline: Pipeline, how: str, items: Any) -> None:
    """Take *items* through *pipeline* in one of the three ways."""
    if how == "run":
        await pipeline.run(items)
    elif how == "stream":
        async with pipeline.stream(items) as results:
            async for _ in results:
                pass
    else:
        async with pipeline:
            await pipeline.feed(items)


# How often each is called for 0 to 3: two fail at the second attempt, one goes the whole way.
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
# Queued, in progress, completed, failed, skipped; and, if the stage retries, as often again.
STATUSES = {"task": 6 + 6 + 3 + 2 + 1, "stage": 6 + 8 + 3 + 2 + 1 + 2}


def calls_of(scope: str) -> dict[str, int]:
    return {**CALLS, "status": STATUSES[scope], "bus_status": STATUSES[scope]}


@row(18, COUNTED)
@explored(
    2,
    raises=st.dictionaries(st.sampled_from(SLOTS), st.booleans(), min_size=1),
    scope=st.sampled_from(["task", "stage"]),
    workers=st.integers(1, 3),
)
def test_callbacks_that_raise_are_counted_and_harm_no_item(
    backend: str,
    schedule: list[Decision],
    caplog: pytest.LogCaptureFixture,
    raises: dict[str, bool],
    scope: str,
    workers: int,
) -> None:
    """*raises* says for each callback whether it is async."""

    def broken(slot: str) -> Handler:
        def at_once(*args: Any) -> None:
            raise OddError(f"the callback {slot}")

        async def later(*args: Any) -> None:
            await checkpoint()
            raise OddError(f"the callback {slot}")

        return later if raises[slot] else at_once

    caplog.clear()
    pipeline = observed({slot: broken(slot) for slot in raises}, scope, workers)
    log = EventLog(pipeline)

    async def main() -> None:
        async with no_task_left():
            results = await pipeline.run(log.source(range(COUNT)))
        assert results.values == [0, 2]
        assert_promises(log, results)

    explore(main, backend=backend, schedule=schedule)
    calls = calls_of(scope)
    assert pipeline.status_tracker is not None
    counted = sum(calls[slot] for slot in raises if slot not in BUS)
    assert pipeline.status_tracker.callback_errors == counted
    for slot, subscriptions in (
        ("bus_status", pipeline.events.status_subscriptions),
        ("bus_task", pipeline.events.task_subscriptions),
    ):
        # The tracker's own, which have names like on_status_change, are on the same bus.
        errors = sum(each.errors for each in subscriptions if not each.name.startswith("on_"))
        assert errors == (calls[slot] if slot in raises else 0)
    # Once for each callback. Two stages have successes, and each has an on_success of its own.
    assert {(record.name, record.levelno) for record in caplog.records} == {
        ("antflow", logging.ERROR)
    }
    logged = Counter(str(record.exc_info[1]) for record in caplog.records if record.exc_info)
    assert logged == {f"the callback {slot}": 1 + (slot == "stage_success") for slot in raises}


class EmptyError(Exception):
    """Counts as false."""

    def __bool__(self) -> bool:
        return False


class UndecidedError(Exception):
    """Counts neither as true nor as false."""

    def __bool__(self) -> bool:
        raise OddError("no truth")


def truth(value: object) -> bool | None:
    try:
        return bool(value)
    except OddError:
        return None


class Records(logging.Handler):
    """Keeps what is logged, and does nothing to it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)


@row(18, COUNTED)
@pytest.mark.parametrize(("kind", "its_truth"), [(EmptyError, False), (UndecidedError, None)])
async def test_an_error_of_a_callback_is_logged_whatever_its_truth(
    kind: type[Exception], its_truth: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = []

    def broken(*args: Any) -> None:
        errors.append(kind())
        raise errors[-1]

    records = Records()
    logger = logging.getLogger("antflow")
    monkeypatch.setattr(logger, "handlers", [records])
    # How others format it is their own business.
    monkeypatch.setattr(logger, "propagate", False)
    tracker = StatusTracker(on_success=broken)
    pipeline = Pipeline([Stage("A", 2, [same])], status_tracker=tracker)
    assert (await pipeline.run(range(5))).values == list(range(5))
    assert tracker.callback_errors == len(errors) == 5
    (record,) = records.kept
    assert record.exc_info is not None
    assert record.exc_info[1] is errors[0]
    assert record.exc_info[2] is not None
    assert truth(errors[0]) is its_truth


class Fatal(BaseException):
    """What is no failure of an item."""


@row(18, FATAL)
@explored(
    2,
    slot=st.sampled_from(SLOTS),
    call=st.integers(1, 3),
    awaits=st.booleans(),
    kind=st.sampled_from([Fatal, GeneratorExit]),
    how=st.sampled_from(["run", "stream", "feed"]),
    scope=st.sampled_from(["task", "stage"]),
)
def test_a_callback_that_raises_no_exception_ends_the_run_clean(
    backend: str,
    schedule: list[Decision],
    slot: str,
    call: int,
    awaits: bool,
    kind: type[BaseException],
    how: str,
    scope: str,
) -> None:
    """It is raised at the *call*-th call, if there are so many."""
    raised: list[BaseException] = []
    calls = 0

    def fatal_at_once(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raised.append(kind(slot))
            raise raised[0]

    async def fatal_later(*args: Any) -> None:
        await checkpoint()
        fatal_at_once(*args)

    pipeline = observed({slot: fatal_later if awaits else fatal_at_once}, scope)
    log = EventLog(pipeline)

    async def main() -> None:
        async with no_task_left():
            if call > calls_of(scope)[slot]:
                await take(pipeline, how, log.source(range(COUNT)))
                assert not raised
                return
            with pytest.raises(kind) as caught:
                await take(pipeline, how, log.source(range(COUNT)))
            assert caught.value is raised[0]
        assert_promises(log, complete=False)
        log.close()
        stats = pipeline.get_stats()
        assert stats.items_in_flight == 0
        if how != "stream":
            # Books first: what is counted was delivered, although its callback never came to be.
            assert len(pipeline.results) == stats.items_processed
            assert len(pipeline.failures) == stats.items_failed
        # The pipeline is as good as new.
        with EventLog(pipeline) as again:
            results = await pipeline.run(again.source(range(COUNT)))
            assert results.values == [0, 2]
            assert_promises(again, results)

    explore(main, backend=backend, schedule=schedule)


@row(19, SLOW)
@explored(
    2,
    slow=st.dictionaries(st.sampled_from(SLOTS), st.integers(0, 3), min_size=1),
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
    """*slow* says for each callback after how many of its calls it takes no time."""
    begun: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    statuses: dict[Any, list[tuple[str, str]]] = {}

    def takes_time(slot: str) -> Handler:
        async def callback(*args: Any) -> None:
            begun[slot] += 1
            await anyio.sleep(10 * (begun[slot] % (slow[slot] + 1)))
            ended[slot] += 1
            if slot == "status":
                statuses.setdefault(args[0].item_id, []).append((args[0].stage, args[0].status))

        return callback

    pipeline = observed({slot: takes_time(slot) for slot in slow}, scope, workers, capacity)
    log = EventLog(pipeline)
    calls = calls_of(scope)

    async def main() -> None:
        async with no_task_left():
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
    # Each was waited for: when the run was over, none was on its way.
    assert begun == ended == {slot: calls[slot] for slot in slow}
    assert pipeline.status_tracker is not None
    assert pipeline.status_tracker.callback_errors == 0
    for item_id, seen in statuses.items():
        assert seen == [
            (event.stage, event.status)
            for event in log.of(item_id)
            if isinstance(event, StatusEvent)
        ]


@row(19, SLOW)
@both
@pytest.mark.parametrize("slot", ["status", "success", "failure", "stage_success", "stage_skip"])
def test_a_run_with_slow_callbacks_can_be_cancelled_at_any_step(backend: str, slot: str) -> None:
    async def callback(*args: Any) -> None:
        await anyio.sleep(10)

    async def main() -> None:
        pipeline = observed({slot: callback})
        log = EventLog(pipeline)
        try:
            async with no_task_left():
                await pipeline.run(log.source(range(COUNT)))
        finally:
            assert_promises(log, complete=False)
            stats = pipeline.get_stats()
            assert len(pipeline.results) == stats.items_processed
            assert len(pipeline.failures) == stats.items_failed
            assert stats.items_in_flight == 0

    for exploration in at_each_step(backend, main, cancel):
        exploration.run(main)
