"""`Pipeline`: a definition that can be run, streamed, fed, and inspected."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Iterable
from typing import Any

from attrs import define, field, setters

from .._backend.cancellation import restoring_keyboard_interrupt
from .._definition.inputs import check_items
from .._definition.stage import Stage, check_stages
from .._definition.validation import check_flag, check_int, reject_argument
from .._events.callbacks import StageCallbacks, build_callbacks
from .._events.event_bus import EventBus
from .._events.status_tracker import StatusTracker
from .._model.items import DEFAULT_PRIORITY
from .._model.results import Results, TooManyFailuresError
from .._run import signals
from .._run.run import Run
from .._run.wiring import RunPlan
from .._state.result_store import ResultStore
from .._state.run_state import RunState
from .._state.stage_state import StageState
from .._tasks.watchdog import Watchdog
from .._workers.result_sink import ResultSink
from .arguments import (
    check_collect_results,
    check_grace,
    check_keep_failures,
    check_keep_frames,
    check_signals,
    check_slow,
    check_tracker,
)
from .block import Block, BlockMethods
from .live_run import PipelineRun
from .result_stream import ResultStream


@define(eq=False, on_setattr=setters.frozen)
class Pipeline(BlockMethods):
    """
    Stages that items go through one after the other.

    A pipeline is a definition: it can be built outside any event loop, and run in several event
    loops, on asyncio and on trio, even at the same time. Each run has its own workers, queues and
    state; `results`, `failures` and the statistics are those of the newest run.

    Args:
        stages: At least one `Stage`; no two have the same name.
        collect_results: Whether a run keeps the values that leave the last stage. A stream keeps
            none in any case.
        status_tracker: Updated with every `StatusEvent`.
        slow_callback_duration: If given, a warning is logged whenever a task blocks the event loop
            for more seconds than this without an ``await``. This costs a few microseconds per task.
        cancel_grace: How many seconds a task may continue after the run was cancelled. After that,
            a task that swallows its cancellation is abandoned with a warning. Code that is shielded
            from cancellation is still finished, and a thread cannot be stopped. By default there is
            no bound. This costs a few microseconds per task.
        keep_failures: How many failures a run keeps, always the newest; by default all. A stream
            keeps none. Failures that are not kept still count for ``max_failures``, `get_stats()`
            and `get_error_summary()`.
        keep_frames: Whether the exceptions of failed items keep the local variables of their
            frames, for a debugger. By default these are removed when the callbacks for the failure
            have returned; the traceback is kept.
        handle_signals: Whether runs handle Ctrl-C and SIGTERM, unless `run()`, `stream()` or
            `open()` is called with another value. The first signal stops reading and finishes what
            was read; it also cancels the body of ``async with pipeline:`` at its next ``await``.
            The second cancels everything, and raises KeyboardInterrupt. Each signal is for all runs
            that handle signals. Meanwhile, handlers of ``signal.signal`` are not called, and those
            of ``loop.add_signal_handler`` are called as well; afterwards all are as they were. This
            works in the main thread only, and not on Windows.

    Attributes:
        events: The bus on which `StatusEvent` and `TaskEvent` are published; subscribe to it to
            receive events without a tracker.

    Raises:
        StageValidationError: An argument is not valid.
    """

    stages: tuple[Stage, ...] = field(converter=check_stages)
    collect_results: bool = field(default=True, validator=check_collect_results)
    status_tracker: StatusTracker | None = field(default=None, validator=check_tracker)
    slow_callback_duration: float | None = field(default=None, validator=check_slow, kw_only=True)
    cancel_grace: float | None = field(default=None, validator=check_grace, kw_only=True)
    keep_failures: int | None = field(default=None, validator=check_keep_failures, kw_only=True)
    keep_frames: bool = field(default=False, validator=check_keep_frames, kw_only=True)
    handle_signals: bool = field(default=False, validator=check_signals, kw_only=True)
    events: EventBus = field(factory=EventBus, init=False, repr=False)
    _callbacks: tuple[StageCallbacks, ...] = field(init=False, repr=False, on_setattr=setters.NO_OP)
    # What changes: the newest run, its state, and the block while the pipeline is entered.
    _run: Run | None = field(default=None, init=False, repr=False, on_setattr=setters.NO_OP)
    _state: RunState = field(init=False, repr=False, on_setattr=setters.NO_OP)
    _block: Block | None = field(default=None, init=False, repr=False, on_setattr=setters.NO_OP)

    def __attrs_post_init__(self) -> None:
        self._callbacks = build_callbacks(self.stages, self.status_tracker)
        self._state = RunState(tuple(map(StageState, self.stages)))
        if self.status_tracker is not None:
            self.status_tracker.connect(self.events, self.stages[-1].name)

    async def run(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        max_failures: int | None = None,
        handle_signals: bool | None = None,
    ) -> Results:
        """
        Process all *items*, and return their results.

        Args:
            items: Any iterable or async iterable; it is read only as far as the queues have room.
                The id of an item is its running number, unless the input is an `Item` with an id or
                a dict with the key "id". A generator is closed at the end.
            max_failures: Stop when more items than this have failed: 0 stops at the first failure.
                By default failures never stop a run.
            handle_signals: If True, the first Ctrl-C or SIGTERM stops reading *items*, and the run
                returns the results of what was read. The second one cancels the run; if that leaves
                items unfinished, KeyboardInterrupt is raised. The default is that of the
                `Pipeline`, whose documentation has the details.

        Returns:
            The successful results in input order, with the failures in ``.failures``.

        Raises:
            TooManyFailuresError: More than *max_failures* items failed.
            PipelineError: *items* cannot be iterated over, or an argument is not valid; or
                something outside antflow cancelled a loop task of the run; or
                ``shutdown(drain=False)`` ended the run before everything was finished.
            Exception: What *items* raised, once the items before that are finished; their outcomes
                are in `results` and `failures`.
        """
        check_items("Pipeline.run()", items)
        if max_failures is not None:
            check_int("Pipeline.run()", "max_failures", max_failures, at_least=0)
        handle_signals = self._handles_signals("Pipeline.run()", handle_signals)
        if handle_signals:
            signals.check_main_thread()
        run = self._new_run(max_failures=max_failures, source=items)
        await self._execute(run, handle_signals)
        results = run.state.results.results()
        if run.state.lifecycle.has_too_many_failures:
            last = results.failures[-1].as_exception() if results.failures else None
            count = run.state.results.failed
            raise TooManyFailuresError(
                f"{count} item{'' if count == 1 else 's'} failed and max_failures is "
                f"{max_failures}{'' if last is None else f'; the last: {last}'}",
                results,
                max_failures,
            ) from last
        return results

    async def _execute(self, run: Run, handle_signals: bool) -> None:
        """Execute *run* in this loop task, until it has ended."""
        self._set_latest(run)
        run.finish()
        with restoring_keyboard_interrupt():
            await (signals.execute(run) if handle_signals else run.execute())
        if not run.state.lifecycle.has_too_many_failures:
            run.raise_for_early_end()

    def stream(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        ordered: bool = False,
        buffer_size: int | float = 128,
        window: int | None = None,
        handle_signals: bool | None = None,
    ) -> ResultStream:
        """
        Process *items*, and yield the outcome of each as soon as it is available.

        A failure is yielded like a result: ``error`` is set, and ``value`` is what the failing
        stage was given. Nothing is kept in `results` and `failures`, so memory use does not grow
        with the number of items::

            async with pipeline.stream(source) as results:
                async for result in results:
                    ...

        Args:
            items: As for `run()`; may be endless.
            ordered: Whether the results are yielded in input order.
            buffer_size: How many results may wait for the consumer. Each worker may hold one more
                while it waits for room; if *ordered*, one result may also release the later results
                that waited for it. With 0, results are handed over one at a time; with math.inf,
                workers never wait.
            window: If *ordered*, how many items may be between the source and the consumer, so that
                a slow item delays fewer than this many others. The default is as many as all stages
                can hold, so that every worker can be busy.
            handle_signals: If True, the first Ctrl-C or SIGTERM stops reading *items*; the loop
                ends after the outcomes of what was read. The second one cancels the run and the
                block, and raises KeyboardInterrupt. The default is that of the `Pipeline`.

        Raises:
            PipelineError: *items* cannot be iterated over, or an argument is not valid.
        """
        owner = "Pipeline.stream()"
        check_items(owner, items)
        check_flag(owner, "ordered", ordered)
        check_int(owner, "buffer_size", buffer_size, at_least=0, infinite=True)
        if window is not None:
            check_int(owner, "window", window, at_least=1)
            if not ordered:
                reject_argument(
                    owner, "window", "None unless ordered=True", window, "Add ordered=True."
                )
        elif ordered:
            window = sum(stage.workers + _finite_capacity(stage) for stage in self.stages)
        handle_signals = self._handles_signals(owner, handle_signals)
        sink = ResultSink(buffer_size, window)
        run = self._new_run(sink=sink, source=items)
        run.finish()
        return ResultStream(run, sink, self._set_latest, handle_signals=handle_signals)

    def open(
        self,
        items: Iterable[Any] | AsyncIterable[Any] | None = None,
        *,
        handle_signals: bool | None = None,
    ) -> PipelineRun:
        """
        Return a live run with results of its own; several may be open at the same time::

            async with pipeline.open() as run:
                await run.feed(batch)
                await run.join()
                print(run.results, run.get_stats())

        Args:
            items: As for `run()`: read from the start, in addition to what is fed later.
            handle_signals: If True, the first Ctrl-C or SIGTERM cancels the body of the block at
                its next ``await``, and what was read is finished. The second one cancels the run,
                and raises KeyboardInterrupt. The default is that of the `Pipeline`.

        Raises:
            PipelineError: *items* cannot be iterated over.
        """
        if items is not None:
            check_items("Pipeline.open()", items)
        handle_signals = self._handles_signals("Pipeline.open()", handle_signals)
        run = self._new_run(source=items)
        return PipelineRun(run, self._set_latest, handle_signals=handle_signals)

    def _handles_signals(self, owner: str, flag: bool | None) -> bool:
        if flag is None:
            return self.handle_signals
        check_flag(owner, "handle_signals", flag)
        return flag

    def _new_run(
        self,
        *,
        max_failures: int | None = None,
        sink: ResultSink | None = None,
        source: Iterable[Any] | AsyncIterable[Any] | None = None,
        target: int = 0,
        priority: float = DEFAULT_PRIORITY,
    ) -> Run:
        is_stream = sink is not None
        results = ResultStore(
            self.collect_results and not is_stream,
            0 if is_stream else self.keep_failures,
            self.keep_frames,
        )
        tracker = self.status_tracker
        watches = self.slow_callback_duration is not None or self.cancel_grace is not None
        return Run(
            RunPlan(
                RunState(tuple(map(StageState, self.stages)), results, max_failures),
                self.events,
                self._callbacks,
                {} if tracker is None else tracker.task_concurrency_limits,
                sink,
                source,
                target,
                priority,
                Watchdog(self.slow_callback_duration, self.cancel_grace) if watches else None,
            )
        )

    def _set_latest(self, run: Run) -> None:
        """Let `results`, the statistics and `shutdown()` refer to *run* from now on."""
        self._run = run
        self._state = run.state


def _finite_capacity(stage: Stage) -> int:
    return 2 * stage.workers if stage.capacity == math.inf else int(stage.capacity)
