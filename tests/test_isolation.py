"""Items do not affect the context of other items or of the caller; see also tests/faults."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import stamina
import trio
from anyio import get_cancelled_exc_class

from antflow import Item, Pipeline, Stage, StatusTracker

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
