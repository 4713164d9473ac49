"""`PipelineRun`: a live run, fed from outside for as long as a block lasts."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Any

from .._definition.inputs import check_items, check_target
from .._definition.validation import check_number
from .._model.errors import PipelineError
from .._model.items import DEFAULT_PRIORITY
from .._run.run import Run
from .._run.run_host import RunHost
from .._state.inspection import Inspection
from .._state.run_state import RunState


class PipelineRun(Inspection):
    """
    One live run, with results and statistics of its own: what `Pipeline.open()` returns.

    Its workers live in the block ``async with pipeline.open() as run:``. On exit, the block waits
    until everything that was fed is finished. If the body raises, running tasks are cancelled.
    """

    def __init__(
        self,
        run: Run,
        set_latest: Callable[[Run], None] | None = None,
        *,
        handle_signals: bool = False,
    ) -> None:
        self._run = run
        # None for a handle of a run that lives elsewhere.
        self._set_latest = set_latest
        self._handle_signals = handle_signals
        self._host: RunHost | None = None

    @property
    def _state(self) -> RunState:  # type: ignore[override]
        return self._run.state

    async def __aenter__(self) -> PipelineRun:
        """
        Start the workers.

        Raises:
            PipelineError: The run has been entered before; or it handles signals, and this is not
                the main thread.
        """
        if self._host is not None or self._set_latest is None:
            raise PipelineError("a run can be entered once. Call pipeline.open() for another.")
        self._host = await RunHost(handle_signals=self._handle_signals).__aenter__()
        self._set_latest(self._run)
        self._host.start(self._run)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """
        Wait until everything that was fed is finished; if the body raised, cancel it instead.

        Raises:
            Exception: What a source raised that no caller of `feed()` waited for, such as the one
                that was given to `Pipeline.open()`.
        """
        assert self._host is not None
        try:
            return await self._host.__aexit__(exc_type, exc, traceback)
        finally:
            # A cancellation that passes here refers to this frame.
            del exc, traceback

    async def feed(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        target_stage: str | None = None,
        priority: float = DEFAULT_PRIORITY,
    ) -> int:
        """Feed *items*, waiting for room, as `Pipeline.feed()` does inside a block."""
        self._check_entered("feed")
        owner = "PipelineRun.feed()"
        check_items(owner, items)
        stages = tuple(state.stage for state in self._state.stages)
        target = check_target(owner, stages, target_stage)
        check_number(owner, "priority", priority, at_least=-math.inf)
        hint = "Call pipeline.open() for another."
        return await self._run.feed(items, target, priority, hint)

    async def feed_async(
        self,
        items: AsyncIterable[Any],
        target_stage: str | None = None,
        priority: float = DEFAULT_PRIORITY,
    ) -> int:
        """Do the same as `feed()`; the name tells the reader that the source is async."""
        return await self.feed(items, target_stage, priority)

    async def join(self) -> None:
        """Wait until everything that was fed is finished, and no source is being read."""
        self._check_entered("join")
        await self._run.join()

    async def shutdown(self, *, drain: bool = True) -> None:
        """Stop the run, and wait for its end, as `Pipeline.shutdown()` does."""
        self._check_entered("shutdown")
        await self._run.shutdown(drain=drain)

    def _check_entered(self, name: str) -> None:
        if self._host is None and self._set_latest is not None:
            raise PipelineError(
                f"{name}() needs a block in which the workers can live. Write:\n"
                "    async with pipeline.open() as run:\n"
                "        await run.feed(items)"
            )
