"""Runs that are fed from outside, for as long as a block lasts."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from anyio.abc import TaskGroup

from .._backend.task_groups import hosting_group
from .._definition.inputs import check_items, check_target
from .._definition.validation import check_number
from .._model.errors import PipelineError
from .._model.items import DEFAULT_PRIORITY
from .._run.run import Run
from .._state.inspection import Inspection
from .._state.run_state import RunState


class Block:
    """
    What an entered pipeline consists of: a task group, and the run that lives in it at present.

    Args:
        new_run: Makes the next run.

    Attributes:
        run: The newest run of this block; None before the first.
        started: Whether it was started or fed, and neither joined nor shut down since.
    """

    def __init__(self, new_run: Callable[[], Run]) -> None:
        self.run: Run | None = None
        self.started = False
        self._leaving = False
        self._new_run = new_run
        self._host: AbstractAsyncContextManager[TaskGroup] = hosting_group()
        self._group: TaskGroup

    async def enter(self) -> None:
        self._group = await self._host.__aenter__()

    async def leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Wait for the end of what was fed, or, if there was an error, cancel it."""
        self._leaving = True
        if self.run is not None and exc_type is None:
            self.run.finish()
        handled = await self._host.__aexit__(exc_type, exc, traceback)
        if self.run is not None and exc_type is None:
            self.run.raise_source_error()
        return handled

    def start(self) -> Run:
        """
        Start a new run; the one before, which has nothing to do any more, ends.

        Raises:
            PipelineError: The block is being left.
        """
        if self._leaving:
            raise PipelineError(
                "the pipeline is being left: its block waits for the end of what was fed, and "
                "begins nothing new. Feed it before the body ends, or from a task of the pipeline."
            )
        if self.run is not None:
            self.run.finish()
        self.started = True
        self.run = self._new_run()
        self._group.start_soon(self.run.execute)
        return self.run


class PipelineRun(Inspection):
    """
    One live run, with results and statistics of its own: what `Pipeline.open()` returns.

    Its workers live in the block ``async with pipeline.open() as run:``. Leaving the block waits
    until all is done that was fed; if the body raises, what runs is cancelled.
    """

    def __init__(self, run: Run, begin: Callable[[Run], None]) -> None:
        self._run = run
        self._begin = begin
        self._host: AbstractAsyncContextManager[TaskGroup] | None = None

    @property
    def _state(self) -> RunState:  # type: ignore[override]
        return self._run.state

    async def __aenter__(self) -> PipelineRun:
        """
        Start the workers.

        Raises:
            PipelineError: It was entered before.
        """
        if self._host is not None:
            raise PipelineError("a run can be entered once. Call pipeline.open() for another.")
        self._host = hosting_group()
        group = await self._host.__aenter__()
        self._begin(self._run)
        group.start_soon(self._run.execute)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """
        Wait until all is done that was fed; or, if the body raised, cancel it.

        Raises:
            Exception: What the source that was given to `Pipeline.open()` raised.
        """
        assert self._host is not None
        if exc_type is None:
            self._run.finish()
        handled = await self._host.__aexit__(exc_type, exc, traceback)
        if exc_type is None:
            self._run.raise_source_error()
        return handled

    async def feed(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        target_stage: str | None = None,
        priority: float = DEFAULT_PRIORITY,
    ) -> int:
        """Feed *items*, waiting for room: as `Pipeline.feed()` inside of a block."""
        self._check_entered("feed")
        owner = "PipelineRun.feed()"
        check_items(owner, items)
        target = check_target(owner, self._run.stages, target_stage)
        check_number(owner, "priority", priority, at_least=-math.inf)
        hint = "Call pipeline.open() for another."
        return await self._run.feed(items, target, priority, hint)

    async def feed_async(
        self,
        items: AsyncIterable[Any],
        target_stage: str | None = None,
        priority: float = DEFAULT_PRIORITY,
    ) -> int:
        """Do the same as `feed()`: the name tells the reader that the source is async."""
        return await self.feed(items, target_stage, priority)

    async def join(self) -> None:
        """Wait until everything that was fed is finished, and nobody is feeding."""
        self._check_entered("join")
        await self._run.join()

    async def shutdown(self, *, drain: bool = True) -> None:
        """Take no more input and wait for the end of what is under way; or cancel it."""
        self._check_entered("shutdown")
        await self._run.shutdown(drain=drain)

    def _check_entered(self, name: str) -> None:
        if self._host is None:
            raise PipelineError(
                f"{name}() needs a block in which the workers can live. Write:\n"
                "    async with pipeline.open() as run:\n"
                "        await run.feed(items)"
            )
