"""The results of a run, one by one, as an async iterator."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from anyio import CancelScope
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from .._backend.background import start_in_background
from .._backend.task_groups import hosting_group
from .._model.errors import PipelineError
from .._model.items import PipelineResult
from .._run.run import Run
from .._state.inspection import Inspection
from .._state.run_state import RunState
from .._workers.pool import ITEMS_PER_TURN
from .._workers.result_sink import ResultSink


class ResultStream(Inspection):
    """
    The outcome of each input, as soon as it is there: what `Pipeline.stream()` returns.

    Write it like this::

        async with pipeline.stream(source) as results:
            async for result in results:
                ...

    Then the workers are tasks of the block: when it is left, for whatever reason, they are
    cancelled, and gone when it is over. ``contextlib.aclosing`` does the same.

    Without either, the workers live in a task of their own until the iteration has ended or the
    stream is closed or freed. A loop that is left early then leaves the caller unharmed, and a
    `ResourceWarning` that tells to write ``async with``.

    Each result is given once, also if several tasks iterate over one stream. A wait for the next
    one may be cancelled, or time out, at any time: none is lost.
    """

    # Only what must outlive this object is in the run: so it is freed when its user drops it.
    def __init__(self, run: Run, sink: ResultSink, begin: Callable[[Run], None]) -> None:
        self._run = run
        self._sink = sink
        self._begin = begin
        self._begun = False
        # How many since others last had a turn.
        self._given = 0
        self._host: AbstractAsyncContextManager[TaskGroup] | None = None
        self._call_soon: Callable[[Callable[[], None]], None] | None = None
        self._errors: list[BaseException] = []
        # Left by its user: there is nothing more to tell.
        self._closed = False

    @property
    def _state(self) -> RunState:  # type: ignore[override]
        return self._run.state

    async def __aenter__(self) -> ResultStream:
        """
        Start the run.

        Raises:
            PipelineError: It was entered or iterated over before.
        """
        if self._begun or self._closed:
            raise PipelineError(
                "a stream can be entered once, before it is iterated over. Call "
                "pipeline.stream(…) for another."
            )
        self._begun = True
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
        """Cancel what runs, and wait for its end."""
        assert self._host is not None
        self._closed = True
        if exc_type is None:
            self._run.cancel()
        # Else the host does that: asyncio counts its cancellations, and one is enough.
        return await self._host.__aexit__(exc_type, exc, traceback)

    def __aiter__(self) -> ResultStream:
        return self

    async def __anext__(self) -> PipelineResult:
        """
        Return the next result.

        Raises:
            StopAsyncIteration: There are no more.
            PipelineError: The run was ended by ``shutdown(drain=False)``.
            Exception: What the source raised, after the results of what it gave before.
        """
        if not self._begun and not self._closed:
            self._begin_in_background()
        while not self._closed:
            if self._given >= ITEMS_PER_TURN:
                # Before it is taken: who is cancelled here loses nothing.
                await checkpoint()
                self._given = 0
            result = self._sink.take()
            if result is not None:
                self._given += 1
                return result
            if self._run.ended.is_set():
                self._closed = True
                self._raise_what_ended_it()
            else:
                await self._sink.wait()
                self._given = 0
        raise StopAsyncIteration

    def _raise_what_ended_it(self) -> None:
        if self._errors:
            raise self._errors.pop()
        try:
            self._run.raise_source_error()
        except StopAsyncIteration as error:
            raise RuntimeError("the source raised StopAsyncIteration") from error
        self._run.raise_if_cut_short()

    def _begin_in_background(self) -> None:
        self._begun = True
        self._begin(self._run)
        self._call_soon = start_in_background(self._run.execute, self._errors.append)

    async def aclose(self) -> None:
        """Cancel what runs, and wait for its end. It does no harm to call it twice, or early."""
        self._closed = True
        if self._begun:
            # Whoever closes it may be cancelled already, and must leave no task behind.
            with CancelScope(shield=True):
                await self._run.shutdown(drain=False)

    async def shutdown(self, *, drain: bool = True) -> None:
        """
        Read no further: what was read so far is still given.

        Args:
            drain: If False, what runs is cancelled, and waited for; then the next result is a
                PipelineError, if anything was left unfinished.
        """
        if self._begun:
            await self._run.shutdown(drain=drain)
        else:
            self._closed = True

    def __del__(self) -> None:
        # This may be another thread, or long after the loop.
        if self._call_soon is not None and not self._run.ended.is_set():
            self._call_soon(self._run.cancel)
            warnings.warn(
                "a stream was left before its end: its workers ran on until now. Write `async with "
                "pipeline.stream(…) as results:` around the loop, and they end with the block.",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )
