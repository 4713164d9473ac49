"""Rows 12 and 27: tasks that swallow their cancellation, and tasks that hold the loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st

from antflow import Pipeline, Stage
from antflow._tasks import watchdog
from antflow.testing import Decision, cancel, cancel_natively, explore
from faults.kit import at_each_step, both, explored, no_task_left, row

TITLE = "A task that swallows its cancellation is named, and holds the run up for a while at most"


async def same(value: int) -> int:
    await checkpoint()
    return value


class Swallower:
    """A task that takes no notice of its cancellation, and counts what a worker began after one."""

    def __init__(self) -> None:
        self.swallowed: set[int] = set()
        self.began_too_late = 0

    async def task(self, value: int) -> int:
        worker = anyio.get_current_task().id
        self.began_too_late += worker in self.swallowed
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class():
            self.swallowed.add(worker)
        return value

    async def run(self) -> None:
        async with no_task_left():
            stages = [
                Stage("A", 2, [self.task], queue_capacity=2),
                Stage("B", 2, [self.task], retry="per_stage"),
            ]
            await Pipeline(stages).run(range(6))


@row(12, TITLE)
@both
def test_after_a_swallowed_cancellation_no_worker_begins_another_item(backend: str) -> None:
    swallowed: set[int] = set()
    hooks = [cancel] if backend == "trio" else [cancel, cancel_natively]
    for hook in hooks:
        for exploration in at_each_step(backend, lambda: Swallower().run(), hook):
            swallower = Swallower()
            with suppress(asyncio.CancelledError):
                exploration.run(swallower.run)
            assert not swallower.began_too_late
            swallowed |= swallower.swallowed
    assert swallowed


@row(12, TITLE)
@explored(step=st.integers(5, 60))
def test_so_it_is_under_every_schedule(backend: str, schedule: list[Decision], step: int) -> None:
    swallower = Swallower()
    explore(swallower.run, backend=backend, schedule=schedule, hooks={step: cancel})
    assert not swallower.began_too_late


@row(12, TITLE)
@explored(step=st.integers(0, 40), workers=st.integers(1, 3))
def test_a_task_that_swallows_each_cancellation_does_not_hold_up_the_end(
    backend: str, schedule: list[Decision], step: int, workers: int
) -> None:
    inside = 0

    async def immovable(value: int) -> int:
        nonlocal inside
        inside += 1
        try:
            while True:
                with suppress(anyio.get_cancelled_exc_class()):
                    await anyio.sleep_forever()
        finally:
            inside -= 1

    async def main() -> None:
        stages = [Stage("A", 2, [same]), Stage("B", workers, [immovable], queue_capacity=1)]
        async with no_task_left():
            # So that it ends, also if the hook comes too early or too late.
            with anyio.move_on_after(5):
                await Pipeline(stages, cancel_grace=0).run(range(6))

    explore(main, backend=backend, schedule=schedule, hooks={step: cancel})
    assert inside == 0


@row(27, "A task that holds the loop is named, at no cost for those who do not ask for it")
@explored(culprit=st.integers(0, 5))
def test_a_task_that_holds_the_loop_is_named(
    backend: str, schedule: list[Decision], culprit: int
) -> None:
    now = 0.0
    heard: list[str] = []

    async def compute(value: int) -> int:
        nonlocal now
        await checkpoint()
        if value == culprit:
            now += 1
        await checkpoint()
        return value

    async def main() -> None:
        pipeline = Pipeline(
            [Stage("A", 2, [same]), Stage("B", 3, [compute])], slow_callback_duration=0.5
        )
        assert (await pipeline.run(range(6))).values == list(range(6))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watchdog, "perf_counter", lambda: now)
        patch.setattr(watchdog.logger, "warning", lambda text, *args: heard.append(text % args))
        explore(main, backend=backend, schedule=schedule)
    (message,) = heard
    position = f"item {culprit} in task 'compute' of stage 'B'"
    assert message.startswith(f"{position} blocked the event loop for 1")
