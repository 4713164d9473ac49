"""Rows 12 and 27: tasks that swallow their cancellation, and tasks that block the event loop."""

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
from faults.kit import at_each_step, both_backends, explored, no_leaked_tasks, row

SWALLOWED = (
    "A task swallows its cancellation: its worker starts no other item; cancel_grace ends the run"
)


async def same(value: int) -> int:
    await checkpoint()
    return value


class SwallowingTask:
    """A task that swallows its cancellation, and counts later calls by the same worker."""

    def __init__(self) -> None:
        self.swallowed: set[int] = set()
        self.started_too_late = 0

    async def task(self, value: int) -> int:
        worker = anyio.get_current_task().id
        self.started_too_late += worker in self.swallowed
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class():
            self.swallowed.add(worker)
        return value

    async def run(self) -> None:
        async with no_leaked_tasks():
            stages = [
                Stage("A", 2, [self.task], queue_capacity=2),
                Stage("B", 2, [self.task], retry="per_stage"),
            ]
            await Pipeline(stages).run(range(6))


@row(12, SWALLOWED)
@both_backends
def test_after_a_swallowed_cancellation_no_worker_starts_another_item(backend: str) -> None:
    swallowed: set[int] = set()
    hooks = [cancel] if backend == "trio" else [cancel, cancel_natively]
    for hook in hooks:
        for exploration in at_each_step(backend, lambda: SwallowingTask().run(), hook):
            swallowing = SwallowingTask()
            with suppress(asyncio.CancelledError):
                exploration.run(swallowing.run)
            assert not swallowing.started_too_late
            swallowed |= swallowing.swallowed
    assert swallowed


@row(12, SWALLOWED)
@explored(step=st.integers(5, 60))
def test_no_worker_starts_another_item_under_any_schedule(
    backend: str, schedule: list[Decision], step: int
) -> None:
    swallowing = SwallowingTask()
    explore(swallowing.run, backend=backend, schedule=schedule, hooks={step: cancel})
    assert not swallowing.started_too_late


@row(12, SWALLOWED)
@explored(step=st.integers(0, 40), workers=st.integers(1, 3))
def test_with_cancel_grace_a_task_that_swallows_every_cancellation_does_not_block_the_run(
    backend: str, schedule: list[Decision], step: int, workers: int
) -> None:
    running = 0

    async def uncancellable(value: int) -> int:
        nonlocal running
        running += 1
        try:
            while True:
                with suppress(anyio.get_cancelled_exc_class()):
                    await anyio.sleep_forever()
        finally:
            running -= 1

    async def main() -> None:
        stages = [Stage("A", 2, [same]), Stage("B", workers, [uncancellable], queue_capacity=1)]
        async with no_leaked_tasks():
            # The deadline cancels the run if the hook is called too early or too late.
            with anyio.move_on_after(5):
                await Pipeline(stages, cancel_grace=0).run(range(6))

    explore(main, backend=backend, schedule=schedule, hooks={step: cancel})
    assert running == 0


@row(27, "A task that blocks the event loop is named in a warning")
@explored(blocking_value=st.integers(0, 5))
def test_a_task_that_blocks_the_event_loop_is_named(
    backend: str, schedule: list[Decision], blocking_value: int
) -> None:
    now = 0.0
    messages: list[str] = []

    async def compute(value: int) -> int:
        nonlocal now
        await checkpoint()
        if value == blocking_value:
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
        patch.setattr(watchdog.logger, "warning", lambda text, *args: messages.append(text % args))
        explore(main, backend=backend, schedule=schedule)
    (message,) = messages
    position = f"item {blocking_value} in task 'compute' of stage 'B'"
    assert message.startswith(f"{position} blocked the event loop for 1")
