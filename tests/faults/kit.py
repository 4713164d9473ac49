"""Helpers for the catalogue of faults: explored runs, fault injection, checks for leaked tasks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio
from hypothesis import given, settings

from antflow.testing import Exploration, schedules

# The file for the figures; set by the slow session only (see `proof` in noxfile.py).
FIGURES = os.environ.get("ANTFLOW_PROOF")

# The number of schedules for each property, on each backend.
SCHEDULES = 10_000 if FIGURES else int(os.environ.get("ANTFLOW_SCHEDULES", "300"))

# To save time, a session with few schedules injects faults at every n-th step only.
STEP_INTERVAL = max(1, 240 // SCHEDULES)

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def row(number: int, title: str) -> pytest.MarkDecorator:
    """Mark a test as part of a row of the catalogue."""
    return pytest.mark.row(number, title)


def explored(
    divisor: int = 1, /, **drawn: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """
    Run a test under many schedules, on both backends.

    The test takes *backend*, *schedule*, and an argument for each strategy in *drawn*. *divisor* is
    for rows in which schedules matter less: 2 means half as many schedules, and a tenth of them in
    the slow session.
    """
    count = 1_000 if FIGURES and divisor > 1 else SCHEDULES // divisor

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        tried = given(schedule=schedules(), **drawn)(test)
        return both_backends(settings(max_examples=count)(tried))

    return decorate


def at_each_step(
    backend: str,
    main: Callable[[], Awaitable[Any]],
    hook: Callable[[Exploration], object],
    interval: int = 1,
) -> Iterator[Exploration]:
    """
    Yield an exploration for every step of *main*, or every n-th, which calls *hook* before it.

    The caller runs each exploration once. *main* must take the same steps each time.
    """
    complete = Exploration(backend)
    complete.run(main)
    for step in range(0, complete.steps, interval * STEP_INTERVAL):
        yield Exploration(backend, hooks={step: hook})


def count_loop_tasks() -> int:
    """Return the number of loop tasks that have not ended."""
    if anyio.get_cancelled_exc_class() is trio.Cancelled:
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


@asynccontextmanager
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Check that no loop task outlives the block, also if the block raises."""
    before = count_loop_tasks()
    try:
        yield
    finally:
        assert count_loop_tasks() == before


class Source:
    """
    A source of the numbers from 0, which records how far it was read.

    Args:
        count: How many numbers there are; None means an endless source.
        error: The exception to raise after the last number.

    Attributes:
        read: How many numbers were read.
        closed: Whether the generator was closed or has ended.
    """

    def __init__(self, count: int | None = None, error: BaseException | None = None) -> None:
        self.count = count
        self.error = error
        self.read = 0
        self.closed = False

    def __iter__(self) -> Iterator[int]:
        try:
            while self.read != self.count:
                self.read += 1
                yield self.read - 1
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True

    async def awaited(self) -> AsyncIterator[int]:
        """Yield the same numbers asynchronously; every third one takes a second of virtual time."""
        try:
            while self.read != self.count:
                if self.read % 3 == 2:
                    await anyio.sleep(1)
                self.read += 1
                yield self.read - 1
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True
