"""User guide, "Retry Strategies"."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from antflow import Pipeline, Stage, StatusTracker

pytestmark = pytest.mark.virtual_time


async def test_each_task_retries_independently() -> None:
    calls: Counter[str] = Counter()

    async def first(x: int) -> int:
        calls["first"] += 1
        return x

    async def second(x: int) -> int:
        calls["second"] += 1
        if calls["second"] < 3:
            raise ConnectionError
        return x

    stage = Stage(name="A", workers=1, tasks=[first, second], retry="per_task", task_attempts=3)
    assert (await Pipeline([stage]).run([1])).values == [1]
    assert calls == {"first": 1, "second": 3}


async def test_task_wait_seconds_is_the_delay_between_attempts() -> None:
    times: list[float] = []

    async def fetch(x: int) -> int:
        times.append(anyio.current_time())
        raise ConnectionError

    stage = Stage("A", 1, [fetch], task_attempts=3, task_wait_seconds=2.0)
    await Pipeline([stage]).run([1])
    assert [round(time - times[0], 6) for time in times] == [0, 2, 4]


async def test_an_item_fails_when_all_attempts_of_a_task_have_failed() -> None:
    async def fail_two(x: int) -> int:
        if x == 2:
            raise ConnectionError
        return x

    tracker = StatusTracker()
    stage = Stage("A", 2, [fail_two], task_attempts=3)
    results = await Pipeline([stage], status_tracker=tracker).run(range(4))
    assert results.values == [0, 1, 3]
    assert [(item.item_id, item.attempts) for item in results.failures] == [(2, 3)]
    assert [event.item_id for event in tracker.get_by_status("failed")] == [2]


async def test_per_stage_any_failure_retries_all_tasks_of_the_stage() -> None:
    calls: Counter[str] = Counter()

    async def begin_transaction(x: int) -> int:
        calls["begin"] += 1
        return x

    async def update_db(x: int) -> int:
        calls["update"] += 1
        if calls["update"] < 3:
            raise ConnectionError
        return x

    async def commit(x: int) -> int:
        calls["commit"] += 1
        return x

    stage = Stage(
        name="TransactionStage",
        workers=2,
        tasks=[begin_transaction, update_db, commit],
        retry="per_stage",
        stage_attempts=3,
    )
    assert (await Pipeline([stage]).run([7])).values == [7]
    assert calls == {"begin": 3, "update": 3, "commit": 1}


async def test_per_stage_other_items_proceed_during_a_back_off() -> None:
    order: list[int] = []
    failed = False

    async def task(x: int) -> int:
        nonlocal failed
        if x == 0 and not failed:
            failed = True
            raise ConnectionError
        order.append(x)
        return x

    stage = Stage("A", 1, [task], retry="per_stage", task_wait_seconds=60)
    results = await Pipeline([stage]).run(range(5))
    assert order == [1, 2, 3, 4, 0]
    assert results.values == [0, 1, 2, 3, 4]


async def test_stage_attempts_limits_the_attempts_of_the_whole_stage() -> None:
    calls = 0

    async def task(x: int) -> int:
        nonlocal calls
        calls += 1
        raise ConnectionError

    results = await Pipeline([Stage("A", 1, [task], "per_stage", stage_attempts=4)]).run([1])
    assert calls == results.failures[0].attempts == 4
