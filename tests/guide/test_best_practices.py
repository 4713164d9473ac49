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
        started = anyio.current_time()
        await Pipeline([Stage("Fetch", workers, [wait])]).run(range(10))
        seconds.append(round(anyio.current_time() - started, 6))
    assert seconds == [10, 2, 1]


async def test_task_wait_seconds_separates_the_attempts() -> None:
    async def flaky(x: int) -> int:
        raise ConnectionError

    started = anyio.current_time()
    stage = Stage("Fetch", 1, [flaky], task_attempts=5, task_wait_seconds=10)
    await Pipeline([stage]).run([1])
    assert anyio.current_time() - started == pytest.approx(40)


async def test_a_slow_callback_delays_its_item_and_loses_nothing() -> None:
    finished: list[Any] = []

    async def slow(item_id: Any, value: Any, payload: dict[str, Any]) -> None:
        await anyio.sleep(5)
        finished.append(item_id)

    tracker = StatusTracker(on_success=slow)
    started = anyio.current_time()
    results = await Pipeline([Stage("A", 2, [wait])], status_tracker=tracker).run(range(4))
    assert sorted(finished) == [0, 1, 2, 3]
    assert len(results) == 4
    assert anyio.current_time() - started == pytest.approx(12)


async def test_a_callback_can_pass_slow_work_to_a_queue() -> None:
    send, receive = anyio.create_memory_object_stream[Any](1000)
    done: list[Any] = []

    async def slow_worker() -> None:
        async for item_id in receive:
            await anyio.sleep(5)
            done.append(item_id)

    tracker = StatusTracker(on_success=lambda item_id, value, payload: send.send_nowait(item_id))
    started = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(slow_worker)
        await Pipeline([Stage("A", 2, [wait])], status_tracker=tracker).run(range(4))
        assert anyio.current_time() - started == pytest.approx(2)
        send.close()
    receive.close()
    assert sorted(done) == [0, 1, 2, 3]


async def test_on_failure_can_store_failed_items_to_run_them_again_later() -> None:
    working = False
    stored: list[dict[str, Any]] = []

    async def save(x: int) -> int:
        if not working:
            raise ConnectionError
        return x

    async def on_failure(item_id: Any, error: Exception, payload: dict[str, Any]) -> None:
        stored.append(payload)

    pipeline = Pipeline(
        [Stage("Save", 2, [save], task_attempts=1)],
        status_tracker=StatusTracker(on_failure=on_failure),
    )
    await pipeline.run([Item(1, id="a"), Item(2, id="b")])
    assert stored == [
        {"id": "a", "value": 1, "metadata": {}, "input": 1, "stage": "Save"},
        {"id": "b", "value": 2, "metadata": {}, "input": 2, "stage": "Save"},
    ]
    working = True
    # The keys "id" and "value" of a payload are those of an input.
    again = await pipeline.run(
        {"id": payload["id"], "value": payload["value"]} for payload in stored
    )
    assert [(result.id, result.value) for result in again] == [("a", 1), ("b", 2)]


async def test_items_failed_can_be_read_during_a_run() -> None:
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
