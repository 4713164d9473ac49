"""`ResultStream`: the results of a run, one by one, as an async iterator."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from types import TracebackType

from anyio import CancelScope
from anyio.lowlevel import checkpoint

from .._backend.background import start_in_background
from .._backend.fairness import ITEMS_PER_TURN
from .._model.errors import PipelineError
from .._model.results import PipelineResult
from .._run import signals
from .._run.run import Run
from .._run.run_host import RunHost
from .._state.inspection import Inspection
from .._state.run_state import RunState
from .._workers.result_sink import ResultSink


class ResultStream(Inspection):
    """
    The outcome of each input, as soon as it is available: what `Pipeline.stream()` returns.

    Use it like this::

        async with pipeline.stream(source) as results:
            async for result in results:
                ...

    Then the workers belong to the block: on exit, for any reason, they are cancelled, and have
    ended when the block has. ``contextlib.aclosing`` does the same.

    Without either, the workers run in the background until the iteration has ended or the stream is
    closed or freed. A loop that is left early does not affect the caller then, but there is a
    `ResourceWarning` that says to write ``async with``.

    Each result is given once, also if several loop tasks iterate over one stream. The wait for the
    next one may be cancelled, or time out, at any time: no result is lost.
    """

    # The run does not refer to this object, so that it is freed when its user drops it.
    def __init__(
        self,
        run: Run,
        sink: ResultSink,
        set_latest: Callable[[Run], None],
        *,
        handle_signals: bool = False,
    ) -> None:
        self._run = run
        self._sink = sink
        self._set_latest = set_latest
        self._begun = False
        # How many results were given since the last yield to the event loop.
        self._given = 0
        self._host = RunHost(cancel_on_exit=True, handle_signals=handle_signals)
        self._handle_signals = handle_signals
        # Set if the run lives in the background.
        self._call_soon: Callable[[Callable[[], object]], bool] | None = None
        self._errors: list[BaseException] = []
        # Nothing more is given.
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
        await self._host.__aenter__()
        self._set_latest(self._run)
        self._host.start(self._run)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Cancel running tasks, and wait for their end."""
        self._closed = True
        return await self._host.__aexit__(exc_type, exc, traceback)

    def __aiter__(self) -> ResultStream:
        return self

    async def __anext__(self) -> PipelineResult:
        """
        Return the next result.

        Raises:
            StopAsyncIteration: There are no more.
            PipelineError: The run was ended by ``shutdown(drain=False)``.
            Exception: What the source raised, after the results of the items before it.
        """
        if not self._begun and not self._closed:
            self._begin_in_background()
        while not self._closed:
            if self._given >= ITEMS_PER_TURN:
                # Before it is taken, so that a cancellation here loses no result.
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
            self._run.raise_for_early_end()
        except StopAsyncIteration as error:
            raise RuntimeError("the source raised StopAsyncIteration") from error

    def _begin_in_background(self) -> None:
        execute = self._run.execute
        if self._handle_signals:
            signals.check_main_thread()
            execute = partial(signals.execute, self._run)
        self._begun = True
        self._set_latest(self._run)
        self._call_soon = start_in_background(execute, self._errors.append)

    async def aclose(self) -> None:
        """Cancel running tasks, and wait for their end; it may be called twice, or early."""
        self._closed = True
        if self._begun:
            # The caller may be cancelled already, and no loop task must be left behind.
            with CancelScope(shield=True):
                await self._run.shutdown(drain=False)

    async def shutdown(self, *, drain: bool = True) -> None:
        """
        Read no further; the outcome of what was read so far is still given.

        Args:
            drain: If False, running tasks are cancelled, and their end is awaited; if items are
                left unfinished, the iteration raises PipelineError.
        """
        if self._begun:
            await self._run.shutdown(drain=drain)
        else:
            self._closed = True

    def __del__(self) -> None:
        # This may happen in another thread, or after the end of the loop.
        if self._call_soon is not None and not self._run.ended.is_set():
            self._call_soon(self._run.cancel)
            warnings.warn(
                "a stream was dropped before its end, and its workers ran until now. Write `async "
                "with pipeline.stream(…) as results:` around the loop: they end with the block.",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )
