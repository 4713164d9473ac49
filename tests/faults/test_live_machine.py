"""Row 30: a live pipeline, driven by hypothesis, does what a simple model says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from antflow import Pipeline, PipelineError, RetryPolicy, Stage, StatusTracker
from antflow.testing import Decision, explore, schedules
from faults.kit import SCHEDULES, both, no_task_left, row

stages = st.integers(0, 2)
counts = st.integers(0, 5)


class BodyError(Exception):
    """Leaves the block in a hurry."""


class Live:
    """
    A pipeline that is fed, and what one may expect of it.

    The model: each value that was read has one outcome when its run has ended, or at most one if
    that run was cancelled; and after `join()` whatever was fed before has its outcome.

    Attributes:
        entered: Whether there is a block.
        fresh: Whether the run takes input: nothing was shut down since it began.
        feeding: How many feeds are under way in tasks of their own.
        read: What was read from sources, by value.
        spared: What may have no outcome, as its run was cancelled.
        done: How often each value was reported as done with.
    """

    def __init__(self, workers: int, capacity: int) -> None:
        self.entered = False
        self.fresh = True
        self.feeding = 0
        self.read: list[int] = []
        self.spared: set[int] = set()
        self.done: Counter[int] = Counter()
        policy = RetryPolicy(scope="stage", attempts=2, wait_initial=1, wait_jitter=0)
        self.pipeline = Pipeline(
            [
                Stage("S0", workers, [self.task], queue_capacity=capacity),
                Stage("S1", 1, [self.flaky], policy, queue_capacity=capacity),
                Stage("S2", workers, [self.task], queue_capacity=capacity),
            ],
            status_tracker=StatusTracker(on_success=self.note, on_failure=self.note),
        )

    async def task(self, value: int) -> int:
        if value % 3 == 0:
            await anyio.sleep(1)
        await checkpoint()
        return value

    async def flaky(self, value: int) -> int:
        await checkpoint()
        if value % 5 == 0:
            raise ValueError(value)
        return value

    def note(self, item_id: Any, outcome: Any, payload: dict[str, Any]) -> None:
        value = payload["value"] if isinstance(outcome, BaseException) else outcome
        self.done[value] += 1

    def source(self, count: int) -> Iterator[int]:
        for _ in range(count):
            self.read.append(len(self.read))
            yield self.read[-1]

    # ---- what can be done to it

    async def feed(self, count: int, target: int, priority: int) -> None:
        if self.feeding:
            with suppress(PipelineError):
                await self.pipeline.feed(self.source(count), f"S{target}", priority)
        elif self.fresh:
            before = len(self.read)
            fed = await self.pipeline.feed(self.source(count), f"S{target}", priority)
            assert fed == count == len(self.read) - before
        else:
            with pytest.raises(PipelineError, match="was shut down"):
                await self.pipeline.feed(self.source(count), f"S{target}", priority)

    async def feed_beside(self, count: int, target: int, patience: int) -> None:
        async def feed() -> None:
            # Once the block is left, a feed is a run of its own, which the time-out cancels.
            alone = self.pipeline._block is None
            with suppress(PipelineError), anyio.move_on_after(patience) as scope:
                await self.pipeline.feed(self.source(count), f"S{target}")
            if alone and scope.cancelled_caught:
                self.spared.update(self.read)
            self.feeding -= 1

        self.feeding += 1
        self.group.start_soon(feed)
        await checkpoint()

    async def join(self) -> None:
        expected = list(self.read)
        await self.pipeline.join()
        assert not self.lost(expected)

    async def start(self) -> None:
        try:
            await self.pipeline.start()
        except PipelineError as refusal:
            if "started already" not in str(refusal):
                raise
            assert self.fresh or self.feeding
        else:
            self.fresh = True

    async def shutdown(self, drain: bool) -> None:
        await self.pipeline.shutdown(drain=drain)
        if self.pipeline._block is not None and self.pipeline._block.host.run is not None:
            self.fresh = False
        if not drain:
            self.spared.update(self.read)
        assert not self.lost(self.read) or self.feeding

    async def wait(self, seconds: int) -> None:
        await anyio.sleep(seconds)

    def lost(self, values: list[int]) -> list[int]:
        """Return which of *values* have no outcome, and ought to."""
        assert all(times == 1 for times in self.done.values())
        return [value for value in values if not self.done[value] and value not in self.spared]

    async def block(self, program: list[Any], fail: bool) -> None:
        """Enter the pipeline, go through *program*, and leave; with an error if *fail*."""
        self.fresh = True
        async with anyio.create_task_group() as self.group:
            try:
                async with self.pipeline:
                    for name, *arguments in program:
                        await getattr(self, name)(*arguments)
                    if fail:
                        raise BodyError
            except BodyError:
                self.spared.update(self.read)
        if fail:
            self.spared.update(self.read)
        if self.feeding == 0:
            assert not self.lost(self.read)
        stats = self.pipeline.get_stats()
        assert stats.items_in_flight == 0

    async def execute(self, blocks: list[tuple[list[Any], bool]]) -> None:
        async with no_task_left():
            for program, fail in blocks:
                await self.block(program, fail)
        assert not self.lost(self.read)


class LiveMachine(RuleBasedStateMachine):
    """Puts a program together, and runs it at the end: hypothesis makes the failing ones short."""

    backend = "asyncio"

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[tuple[list[Any], bool]] = [([], False)]
        self.workers = self.capacity = 1
        self.schedule: list[Decision] = []

    @property
    def program(self) -> list[Any]:
        return self.blocks[-1][0]

    @precondition(lambda self: not self.program and len(self.blocks) == 1)
    @rule(workers=st.integers(1, 3), capacity=st.integers(0, 2), schedule=schedules())
    def shape(self, workers: int, capacity: int, schedule: list[Decision]) -> None:
        self.workers, self.capacity, self.schedule = workers, capacity, schedule

    @rule(count=counts, stage=stages, priority=st.sampled_from([100, 100, 1, 200]))
    def feed(self, count: int, stage: int, priority: int) -> None:
        self.program.append(("feed", count, stage, priority))

    @rule(count=counts, stage=stages, patience=st.sampled_from([1000, 1000, 0, 1, 2]))
    def feed_beside(self, count: int, stage: int, patience: int) -> None:
        self.program.append(("feed_beside", count, stage, patience))

    @rule(seconds=st.integers(0, 3))
    def wait(self, seconds: int) -> None:
        self.program.append(("wait", seconds))

    @rule()
    def join(self) -> None:
        self.program.append(("join",))

    @rule()
    def start(self) -> None:
        self.program.append(("start",))

    @rule(drain=st.booleans())
    def shutdown(self, drain: bool) -> None:
        self.program.append(("shutdown", drain))

    @precondition(lambda self: self.program)
    @rule(fail=st.booleans())
    def reopen(self, fail: bool) -> None:
        self.blocks[-1] = (self.program, fail)
        self.blocks.append(([], False))

    def teardown(self) -> None:
        live = Live(self.workers, self.capacity)
        explore(live.execute, self.blocks, backend=self.backend, schedule=self.schedule)


@row(30, "A live pipeline, fed, shut down, cancelled, joined and reopened, does what a model says")
@both
def test_a_live_pipeline_does_what_the_model_says(backend: str) -> None:
    machine = type("Machine", (LiveMachine,), {"backend": backend})
    # Of the programs of up to 12 steps; each is one schedule.
    run_state_machine_as_test(
        machine, settings=settings(max_examples=SCHEDULES, stateful_step_count=12)
    )
