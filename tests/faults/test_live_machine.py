"""Row 30: hypothesis operates a live pipeline, and compares it with a simple model."""

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
from faults.kit import SCHEDULES, both_backends, no_leaked_tasks, row

stages = st.integers(0, 2)
counts = st.integers(0, 5)


class BodyError(Exception):
    """Raised in the block to exit it early."""


class Live:
    """
    A live pipeline, and a model of what it must do.

    The model: when a run has ended, each value that it read has one outcome, or at most one if the
    run was cancelled. After `join()`, each value that was fed before has its outcome.

    Attributes:
        accepts_input: Whether the run accepts input: it was not shut down since it started.
        feeding: How many calls of `feed()` are running in their own loop tasks.
        read: The values that were read from sources.
        excused: The values that may have no outcome, because their run was cancelled.
        outcomes: How many outcomes were reported for each value.
    """

    def __init__(self, workers: int, capacity: int) -> None:
        self.accepts_input = True
        self.feeding = 0
        self.read: list[int] = []
        self.excused: set[int] = set()
        self.outcomes: Counter[int] = Counter()
        policy = RetryPolicy(scope="stage", attempts=2, wait_initial=1, wait_jitter=0)
        self.pipeline = Pipeline(
            [
                Stage("S0", workers, [self.task], queue_capacity=capacity),
                Stage("S1", 1, [self.flaky], policy, queue_capacity=capacity),
                Stage("S2", workers, [self.task], queue_capacity=capacity),
            ],
            status_tracker=StatusTracker(on_success=self.record, on_failure=self.record),
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

    def record(self, item_id: Any, outcome: Any, payload: dict[str, Any]) -> None:
        value = payload["value"] if isinstance(outcome, BaseException) else outcome
        self.outcomes[value] += 1

    def source(self, count: int) -> Iterator[int]:
        for _ in range(count):
            self.read.append(len(self.read))
            yield self.read[-1]

    # ---- the operations

    async def feed(self, count: int, target: int, priority: int) -> None:
        if self.feeding:
            with suppress(PipelineError):
                await self.pipeline.feed(self.source(count), f"S{target}", priority)
        elif self.accepts_input:
            before = len(self.read)
            fed = await self.pipeline.feed(self.source(count), f"S{target}", priority)
            assert fed == count == len(self.read) - before
        else:
            with pytest.raises(PipelineError, match="was shut down"):
                await self.pipeline.feed(self.source(count), f"S{target}", priority)

    async def feed_in_background(self, count: int, target: int, timeout: int) -> None:
        async def feed() -> None:
            # After the block has exited, a feed is a run of its own, which the timeout cancels.
            alone = self.pipeline._block is None
            with suppress(PipelineError), anyio.move_on_after(timeout) as scope:
                await self.pipeline.feed(self.source(count), f"S{target}")
            if alone and scope.cancelled_caught:
                self.excused.update(self.read)
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
            assert self.accepts_input or self.feeding
        else:
            self.accepts_input = True

    async def shutdown(self, drain: bool) -> None:
        await self.pipeline.shutdown(drain=drain)
        if self.pipeline._block is not None and self.pipeline._block.host.run is not None:
            self.accepts_input = False
        if not drain:
            self.excused.update(self.read)
        assert not self.lost(self.read) or self.feeding

    async def wait(self, seconds: int) -> None:
        await anyio.sleep(seconds)

    def lost(self, values: list[int]) -> list[int]:
        """Return those of *values* that must have an outcome and have none."""
        assert all(times == 1 for times in self.outcomes.values())
        return [value for value in values if not self.outcomes[value] and value not in self.excused]

    async def block(self, program: list[Any], fail: bool) -> None:
        """Enter the pipeline, perform *program*, and exit; with an exception if *fail*."""
        self.accepts_input = True
        async with anyio.create_task_group() as self.group:
            try:
                async with self.pipeline:
                    for name, *arguments in program:
                        await getattr(self, name)(*arguments)
                    if fail:
                        raise BodyError
            except BodyError:
                self.excused.update(self.read)
        if fail:
            self.excused.update(self.read)
        if self.feeding == 0:
            assert not self.lost(self.read)
        stats = self.pipeline.get_stats()
        assert stats.items_in_flight == 0

    async def execute(self, blocks: list[tuple[list[Any], bool]]) -> None:
        async with no_leaked_tasks():
            for program, fail in blocks:
                await self.block(program, fail)
        assert not self.lost(self.read)


class LiveMachine(RuleBasedStateMachine):
    """Collects a program, and runs it in `teardown`; hypothesis shrinks the programs that fail."""

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

    @rule(count=counts, stage=stages, timeout=st.sampled_from([1000, 1000, 0, 1, 2]))
    def feed_in_background(self, count: int, stage: int, timeout: int) -> None:
        self.program.append(("feed_in_background", count, stage, timeout))

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


@row(30, "A live pipeline: fed, shut down, cancelled, joined and reopened, it matches a model")
@both_backends
def test_a_live_pipeline_matches_the_model(backend: str) -> None:
    machine = type("Machine", (LiveMachine,), {"backend": backend})
    # Each example is a program of up to 12 operations, under one schedule.
    run_state_machine_as_test(
        machine, settings=settings(max_examples=SCHEDULES, stateful_step_count=12)
    )
