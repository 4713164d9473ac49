"""Items do not affect the context of other items or of the caller; see also tests/faults."""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import pytest
import sniffio
import stamina
import trio
from anyio import get_cancelled_exc_class
from anyio.lowlevel import checkpoint
from hypothesis import given

from antflow import Item, Pipeline, Stage, StatusTracker
from antflow._backend.context import run_in_context
from antflow.testing import explore, schedules

new: ContextVar[Any] = ContextVar("new")
known: ContextVar[str] = ContextVar("known")


class Incomparable:
    """A value whose comparison raises, like that of arrays."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")


async def test_context_variables_are_restored_after_each_item() -> None:
    seen = []

    async def task(value: int) -> int:
        seen.append((known.get(), new.get(None)))
        if value % 2:
            known.set("changed")
        else:
            new.set(Incomparable() if value % 4 else value)
        return value

    token = known.set("set by the caller")
    try:
        results = await Pipeline([Stage("A", 1, [task])]).run(range(9))
    finally:
        known.reset(token)
    assert results.values == list(range(9))
    assert seen == [("set by the caller", None)] * 9


async def test_a_back_off_has_the_context_variables_of_the_caller() -> None:
    """Retry hooks of stamina do not see what the task has set."""
    seen = []

    async def task(value: int) -> int:
        known.set("set by the task")
        if value not in failed:
            failed.add(value)
            raise ValueError(value)
        return value

    failed: set[int] = set()
    stamina.instrumentation.set_on_retry_hooks([lambda details: seen.append(known.get())])
    token = known.set("set by the caller")
    try:
        stage = Stage("A", 1, [task], retry="per_stage", task_wait_seconds=0)
        results = await Pipeline([stage]).run(range(3))
    finally:
        known.reset(token)
    assert results.values == [0, 1, 2]
    assert seen == ["set by the caller"] * 3


async def test_context_values_that_cannot_be_compared_do_not_end_the_run() -> None:
    token = new.set(Incomparable())
    try:
        results = await Pipeline([Stage("A", 1, [set_another])]).run(range(3))
    finally:
        new.reset(token)
    assert results.values == [0, 1, 2]


async def set_another(value: int) -> int:
    new.set(Incomparable())
    return value


async def test_a_library_of_the_other_backend_fails_its_item_with_a_hint() -> None:
    on_trio = get_cancelled_exc_class() is trio.Cancelled

    async def task(value: int) -> int:
        if value == 1 and on_trio:
            await asyncio.sleep(1)
        elif value == 1:
            await trio.sleep(1)
        elif value == 2:
            raise RuntimeError("another")
        return value

    results = await Pipeline([Stage("A", 1, [task], task_attempts=1)]).run(range(4))
    assert results.values == [0, 3]
    foreign, other = results.failures
    assert f"made for {'asyncio' if on_trio else 'trio'}" in foreign.error
    assert "made for" not in other.error


async def test_ids_without_hash_and_repr_are_distinguished() -> None:
    class Nameless:
        __hash__ = None  # type: ignore[assignment]

        def __repr__(self) -> str:
            raise ValueError("nameless")

    async def same(value: int) -> int:
        return value

    tracker = StatusTracker()
    ids: list[Any] = [Nameless(), Nameless(), [1], [2]]
    await Pipeline([Stage("A", 1, [same])], status_tracker=tracker).run(
        Item(number, id=item_id) for number, item_id in enumerate(ids)
    )
    assert [tracker.get_status(item_id) is not None for item_id in ids] == [True] * 4
    assert tracker.get_stats()["completed"] == 4


async def set_new(value: int) -> int:
    assert new.get(None) is None
    new.set(value)
    await checkpoint()
    assert new.get() == value
    return value


async def see_new(value: int) -> int:
    assert new.get() == value
    await checkpoint()
    return value


async def see_nothing(value: int) -> int:
    assert new.get(None) is None
    return value


async def run_with_a_new_variable(retry: Any) -> None:
    pipeline = Pipeline(
        [
            Stage("One", 3, [set_new], retry, task_attempts=1),
            Stage("Several", 2, [set_new, see_new, see_new], retry, task_attempts=1),
            Stage("Last", 1, [see_nothing], retry, task_attempts=1),
        ]
    )
    results = await pipeline.run(range(20))
    results.raise_for_failures()
    assert results.values == list(range(20))
    assert new.get(None) is None


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
async def test_a_new_variable_is_seen_by_later_tasks_of_the_stage_only(retry: Any) -> None:
    await run_with_a_new_variable(retry)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(schedule=schedules())
def test_a_new_variable_is_seen_by_nobody_else_under_any_schedule(
    backend: str, schedule: Any
) -> None:
    explore(run_with_a_new_variable, "per_task", backend=backend, schedule=schedule)


async def test_the_loop_knows_a_task_that_sets_a_new_variable() -> None:
    """Also later items, which get a context of their own but no loop task."""
    on_asyncio = get_cancelled_exc_class() is asyncio.CancelledError
    seen = []

    async def child(value: int) -> None:
        assert new.get() == value

    async def forever() -> None:
        await anyio.sleep_forever()

    async def native(value: int) -> None:
        if on_asyncio:
            loop_task = asyncio.current_task()
            assert loop_task is not None
            assert loop_task.get_name() == "A-W0"
            called = asyncio.Event()
            asyncio.get_running_loop().call_soon(
                lambda: (seen.append(new.get()), called.set())  # type: ignore[func-returns-value]
            )
            await called.wait()
            await asyncio.create_task(child(value))
            if sys.version_info >= (3, 11):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await forever()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(child(value))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(forever(), 0)
        else:
            assert trio.lowlevel.current_task().name == "A-W0"
            seen.append(new.get())
            with trio.move_on_after(0) as limit:
                await trio.sleep_forever()
            assert limit.cancelled_caught
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child, value)

    async def task(value: int) -> int:
        token = new.set(value)
        assert sniffio.current_async_library() == ("asyncio" if on_asyncio else "trio")
        await native(value)
        with anyio.move_on_after(0) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        async with anyio.create_task_group() as group:
            group.start_soon(child, value)
        assert await anyio.to_thread.run_sync(new.get) == value
        new.reset(token)
        assert new.get(None) is None
        new.set(value)
        if value % 3 == 2:
            raise ValueError(value)
        return value

    tracker = StatusTracker(on_success=lambda *args: seen.append(new.get()))
    stage = Stage("A", 1, [task], task_attempts=1)
    results = await Pipeline([stage], status_tracker=tracker).run(range(6))
    assert results.values == [0, 1, 3, 4]
    assert [failure.error for failure in results.failures] == ["2", "5"]
    # Callbacks for the item see what its tasks have set.
    assert seen == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5]


async def test_a_cancellation_reaches_a_task_in_a_context_of_its_own() -> None:
    ended = []

    async def task(value: int) -> int:
        new.set(value)
        if value == 2:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append(new.get())
        return value

    pipeline = Pipeline([Stage("A", 1, [task])])
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.run, range(4))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert ended == [2]
    assert pipeline.results.values == [0, 1]


async def test_what_is_dropped_is_closed_in_its_context() -> None:
    ended = []

    async def task() -> None:
        new.set("inside")
        try:
            await forever
        finally:
            ended.append(new.get())

    class Forever:
        def __await__(self) -> Any:
            yield

    forever = Forever()

    async def worker() -> None:
        await run_in_context(copy_context(), task())

    coroutine = worker()
    coroutine.send(None)
    coroutine.close()
    assert ended == ["inside"]
    assert new.get(None) is None


async def test_a_new_variable_costs_no_loop_task_per_item() -> None:
    loop_tasks = set()

    async def task(value: int) -> int:
        new.set(value)
        await checkpoint()
        loop_tasks.add(anyio.get_current_task().id)
        return value

    results = await Pipeline([Stage("A", 2, [task])]).run(range(50))
    assert len(results) == 50
    assert len(loop_tasks) <= 4
