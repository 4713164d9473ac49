"""What the catalogue of faults is tested with: explored runs, and what "clean" means."""

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

# Where to write the figures, in the slow session (see noxfile.py).
FIGURES = os.environ.get("ANTFLOW_PROOF")

# Each property is tried under so many schedules, on each backend.
SCHEDULES = 10_000 if FIGURES else int(os.environ.get("ANTFLOW_SCHEDULES", "300"))

# Where schedules are few, for time, faults strike at each fourth step only.
EVERY = max(1, 240 // SCHEDULES)

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def row(number: int, title: str) -> pytest.MarkDecorator:
    """Say which row of the catalogue a test belongs to."""
    return pytest.mark.row(number, title)


def explored(
    part: int = 1, /, **drawn: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """
    Run a test under many schedules, on both backends.

    The test takes *backend* and *schedule*, and what *drawn* says: hypothesis strategies by name.
    *part* is for rows which are less about schedules: 2 tries half as many, and in the slow session
    a tenth.
    """
    most = 1_000 if FIGURES and part > 1 else SCHEDULES // part

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        tried = given(schedule=schedules(), **drawn)(test)
        return both(settings(max_examples=most)(tried))

    return decorate


def at_each_step(
    backend: str,
    main: Callable[[], Awaitable[Any]],
    hook: Callable[[Exploration], object],
    every: int = 1,
) -> Iterator[Exploration]:
    """
    Give one exploration for each step of *main*, or each *every*th, with *hook* before that step.

    The caller runs them, each once. *main* must take the same steps each time.
    """
    whole = Exploration(backend)
    whole.run(main)
    for step in range(0, whole.steps, every * EVERY):
        yield Exploration(backend, hooks={step: hook})


def living_tasks() -> int:
    """Return how many tasks there are."""
    if anyio.get_cancelled_exc_class() is trio.Cancelled:
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


@asynccontextmanager
async def no_task_left() -> AsyncIterator[None]:
    """Check that the block leaves no task behind, however it ends."""
    before = living_tasks()
    try:
        yield
    finally:
        assert living_tasks() == before


class Source:
    """
    Numbers from 0 on, read one by one, that know how far they were read.

    Args:
        count: How many; None for no end.
        error: Raised after these.

    Attributes:
        read: How many were given.
        closed: Whether the generator was closed, or read to its end.
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
        """Give the same asynchronously, with a virtual second before each third one."""
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
