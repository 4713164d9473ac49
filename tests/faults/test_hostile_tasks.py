"""Row 12: tasks that swallow their cancellation."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anyio
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st

from antflow import Pipeline, Stage
from antflow.testing import Decision, cancel, cancel_natively, explore
from faults.kit import at_each_step, both, explored, no_task_left, row

TITLE = "A task that swallows its cancellation is named, and holds the run up for a while at most"


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
