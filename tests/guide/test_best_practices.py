"""User guide, "Best Practices"."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from antflow import Item, Pipeline, Stage, StatusTracker

pytestmark = pytest.mark.virtual_time


async def wait(x: int) -> int:
    await anyio.sleep(1)
    return x


async def test_more_workers_make_a_waiting_stage_faster() -> None:
    seconds = []
    for workers in (1, 5, 10):
        began = anyio.current_time()
        await Pipeline([Stage("Fetch", workers, [wait])]).run(range(10))
        seconds.append(round(anyio.current_time() - began, 6))
    assert seconds == [10, 2, 1]


async def test_task_wait_seconds_spreads_the_attempts() -> None:
    async def flaky(x: int) -> int:
        raise ConnectionError

    began = anyio.current_time()
    stage = Stage("Fetch", 1, [flaky], task_attempts=5, task_wait_seconds=10)
    await Pipeline([stage]).run([1])
    assert anyio.current_time() - began == pytest.approx(40)


async def test_a_slow_callback_slows_its_item_and_loses_nothing() -> None:
    told: list[Any] = []

    async def slow(item_id: Any, value: Any, payload: dict[str, Any]) -> None:
        await anyio.sleep(5)
        told.append(item_id)

    tracker = StatusTracker(on_success=slow)
    began = anyio.current_time()
    results = await Pipeline([Stage("A", 2, [wait])], status_tracker=tracker).run(range(4))
    assert sorted(told) == [0, 1, 2, 3]
    assert len(results) == 4
    assert anyio.current_time() - began == pytest.approx(12)


async def test_heavy_work_of_a_callback_can_go_to_a_queue() -> None:
    send, receive = anyio.create_memory_object_stream[Any](1000)
    done: list[Any] = []

    async def heavy() -> None:
        async for item_id in receive:
            await anyio.sleep(5)
            done.append(item_id)

    tracker = StatusTracker(on_success=lambda item_id, value, payload: send.send_nowait(item_id))
    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(heavy)
        await Pipeline([Stage("A", 2, [wait])], status_tracker=tracker).run(range(4))
        assert anyio.current_time() - began == pytest.approx(2)
        send.close()
    receive.close()
    assert sorted(done) == [0, 1, 2, 3]


async def test_failed_items_can_be_kept_by_on_failure_and_run_again_later() -> None:
    working = False
    kept: list[dict[str, Any]] = []

    async def save(x: int) -> int:
        if not working:
            raise ConnectionError
        return x

    async def on_failure(item_id: Any, error: Exception, payload: dict[str, Any]) -> None:
        kept.append(payload)

    pipeline = Pipeline(
        [Stage("Save", 2, [save], task_attempts=1)],
        status_tracker=StatusTracker(on_failure=on_failure),
    )
    await pipeline.run([Item(1, id="a"), Item(2, id="b")])
    assert kept == [
        {"id": "a", "value": 1, "metadata": {}},
        {"id": "b", "value": 2, "metadata": {}},
    ]
    working = True
    # A payload is an input as it stands.
    again = await pipeline.run({"id": payload["id"], "value": payload["value"]} for payload in kept)
    assert [(result.id, result.value) for result in again] == [("a", 1), ("b", 2)]


async def test_items_failed_can_be_watched_during_a_run() -> None:
    async def fail(x: int) -> int:
        await anyio.sleep(1)
        raise ValueError

    pipeline = Pipeline([Stage("A", 1, [fail], task_attempts=1)])
    seen: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.run, range(3))
        await anyio.sleep(0.5)
        for _ in range(4):
            seen.append(pipeline.get_stats().items_failed)
            await anyio.sleep(1)
    assert seen == [0, 1, 2, 3]
