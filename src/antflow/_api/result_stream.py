"""`ResultStream`: the results of a run, one by one, as an async iterator."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from types import TracebackType

from anyio import CancelScope
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from .._backend.background import start_in_background
from .._backend.fairness import ITEMS_PER_YIELD
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

    The workers belong to the block: when it exits, for any reason, they are cancelled, and the
    block waits for their end. ``contextlib.aclosing`` cancels them and waits as well.

    Without ``async with``, the workers run in the background until the iteration has ended or the
    stream is closed or freed. Leaving such a loop early does not affect the caller. If the stream
    is then freed without `aclose()`, a `ResourceWarning` says to write ``async with``.

    Each result is returned once, even if several loop tasks iterate over one stream. Waiting for
    the next result may be cancelled, or time out, at any time: no result is lost.
    """

    # The run must not refer to this object, so that it is freed when the user drops it.
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
        self._started = False
        # How many results were returned since the last yield to the event loop.
        self._since_yield = 0
        self._host = RunHost(cancel_on_exit=True, handle_signals=handle_signals)
        self._handle_signals = handle_signals
        # Set if the run is in the background.
        self._call_soon: Callable[[Callable[[], object]], bool] | None = None
        self._errors: list[BaseException] = []
        # Whether no more results are returned.
        self._closed = False

    @property
    def _state(self) -> RunState:  # type: ignore[override]
        return self._run.state

    async def __aenter__(self) -> ResultStream:
        """
        Start the run.

        Raises:
            PipelineError: The stream has been entered, iterated over or closed before; or it
                handles signals, and this is not the main thread.
        """
        if self._started or self._closed:
            raise PipelineError(
                "a stream can be entered once, before it is iterated over. Call "
                "pipeline.stream(…) for another one."
            )
        await self._host.__aenter__()
        self._started = True
        self._set_latest(self._run)
        self._host.start(self._run)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Cancel running tasks, and wait until they have ended."""
        self._closed = True
        try:
            return await self._host.__aexit__(exc_type, exc, traceback)
        finally:
            # A cancellation that passes here refers to this frame.
            del exc, traceback

    def __aiter__(self) -> ResultStream:
        return self

    async def __anext__(self) -> PipelineResult:
        """
        Return the next result.

        Raises:
            StopAsyncIteration: There are no more results.
            PipelineError: The run was ended by ``shutdown(drain=False)``.
            Exception: What the source raised, after the results of the items before that.
        """
        if not self._started and not self._closed:
            self._start_in_background()
        while not self._closed:
            if self._since_yield >= ITEMS_PER_YIELD:
                # Before a result is taken, so that a cancellation here loses none.
                await checkpoint()
                self._since_yield = 0
            result = self._sink.take()
            if result is not None:
                self._since_yield += 1
                return result
            if self._run.ended.is_set():
                # What has ended the run may be a cancellation of the caller.
                await checkpoint_if_cancelled()
                self._closed = True
                self._raise_final_error()
            else:
                await self._sink.wait()
                self._since_yield = 0
        raise StopAsyncIteration

    def _raise_final_error(self) -> None:
        if self._errors:
            raise self._errors.pop()
        try:
            self._run.raise_for_early_end()
        except StopAsyncIteration as error:
            raise RuntimeError("the source raised StopAsyncIteration") from error

    def _start_in_background(self) -> None:
        execute = self._run.execute
        if self._handle_signals:
            signals.check_main_thread()
            execute = partial(signals.execute, self._run)
        self._started = True
        self._run.begin()
        self._set_latest(self._run)
        self._call_soon = start_in_background(execute, self._errors.append)

    async def aclose(self) -> None:
        """Cancel running tasks, and wait until they have ended; may be called at any time."""
        self._closed = True
        if self._started:
            # Even if the caller is already cancelled, no loop task must be left behind.
            with CancelScope(shield=True):
                await self._run.shutdown(drain=False)

    async def shutdown(self, *, drain: bool = True) -> None:
        """
        Stop reading the source; the outcomes of the items that were read are still returned.

        Args:
            drain: If False, running tasks are cancelled, and the call waits until they have ended.
                If that leaves items unfinished, the iteration raises PipelineError.
        """
        if self._started:
            await self._run.shutdown(drain=drain)
        else:
            self._closed = True

    def __del__(self) -> None:
        # This may run in another thread, or after the loop is closed.
        if self._call_soon is not None and not self._run.ended.is_set():
            self._call_soon(self._run.cancel)
            warnings.warn(
                "a stream was dropped before its end, and its workers ran until now. Write `async "
                "with pipeline.stream(…) as results:` around the loop: they end with the block.",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )
