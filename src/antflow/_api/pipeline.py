"""The face of antflow: a pipeline is a definition that can be run, and asked how it goes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Iterable
from types import TracebackType
from typing import Any

from attrs import define, field, setters

from .._backend.cancellation import interrupts
from .._backend.task_groups import hosting_group
from .._definition.inputs import check_items, check_target
from .._definition.stage import Stage, check_stages
from .._definition.validation import check_flag, check_int, check_number, reject_argument
from .._events.callbacks import build_callbacks
from .._events.event_bus import EventBus
from .._events.status_tracker import StatusTracker
from .._model.errors import PipelineError, TooManyFailuresError
from .._model.items import DEFAULT_PRIORITY, Results
from .._run.run import Run
from .._run.signals import check_main_thread, heed_signals
from .._state.inspection import Inspection
from .._state.run_state import RunState
from .._tasks.watchdog import make_guard
from .._workers.pool import StageCallbacks
from .._workers.result_sink import ResultSink
from .live_run import Block, PipelineRun
from .result_stream import ResultStream


def _check_collect_results(pipeline: Pipeline, attribute: Any, flag: object) -> None:
    if not isinstance(flag, bool):
        hint = "Write status_tracker=…." if isinstance(flag, StatusTracker) else None
        reject_argument("Pipeline", "collect_results", "True or False", flag, hint)


def _check_tracker(pipeline: Pipeline, attribute: Any, tracker: object) -> None:
    if tracker is not None and not isinstance(tracker, StatusTracker):
        hint = "Write status_tracker=StatusTracker()." if tracker is StatusTracker else None
        reject_argument("Pipeline", "status_tracker", "a StatusTracker or None", tracker, hint)


def _check_slow(pipeline: Pipeline, attribute: Any, seconds: float | None) -> None:
    if seconds is not None:
        check_number("Pipeline", "slow_callback_duration", seconds, at_least=0, above=True)


def _check_grace(pipeline: Pipeline, attribute: Any, seconds: float | None) -> None:
    if seconds is not None:
        check_number("Pipeline", "cancel_grace", seconds, at_least=0)


@define(eq=False, on_setattr=setters.frozen)
class Pipeline(Inspection):
    """
    Stages that items go through one after the other.

    A pipeline is a definition: it can be built outside any event loop, and run in several, on
    asyncio and on trio, also at the same time. Each run has its own workers, queues and books;
    `results`, `failures` and the statistics speak of the newest.

    Args:
        stages: At least one `Stage`; no two have the same name.
        collect_results: Whether `run()` keeps what comes out of the last stage. Failures are
            always kept.
        status_tracker: Is told of every event.
        slow_callback_duration: If given, the log warns of each task that holds the loop for longer
            than so many seconds without an ``await``. It costs a few microseconds per task.
        cancel_grace: For how many seconds a task may go on once the run is cancelled: one that
            swallows its cancellation is given up then, and the log says so. It still ends what
            it shields from cancellation, and a thread cannot be stopped. By default for ever. It
            costs a few microseconds per task.

    Attributes:
        events: The bus on which `StatusEvent` and `TaskEvent` are published: subscribe here to
            hear them without a tracker.

    Raises:
        StageValidationError: An argument is not valid.
    """

    stages: tuple[Stage, ...] = field(converter=check_stages)
    collect_results: bool = field(default=True, validator=_check_collect_results)
    status_tracker: StatusTracker | None = field(default=None, validator=_check_tracker)
    slow_callback_duration: float | None = field(default=None, validator=_check_slow, kw_only=True)
    cancel_grace: float | None = field(default=None, validator=_check_grace, kw_only=True)
    events: EventBus = field(factory=EventBus, init=False, repr=False)
    _hooks: tuple[StageCallbacks, ...] = field(init=False, repr=False, on_setattr=setters.NO_OP)
    # What changes: the newest run, its books, and the block if the pipeline is entered.
    _run: Run | None = field(default=None, init=False, repr=False, on_setattr=setters.NO_OP)
    _state: RunState = field(init=False, repr=False, on_setattr=setters.NO_OP)
    _block: Block | None = field(default=None, init=False, repr=False, on_setattr=setters.NO_OP)

    def __attrs_post_init__(self) -> None:
        self._hooks = build_callbacks(self.stages, self.status_tracker)
        self._state = RunState(self.stages)
        if self.status_tracker is not None:
            self.status_tracker.connect(self.events)

    async def run(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        max_failures: int | None = None,
        handle_signals: bool = False,
    ) -> Results:
        """
        Take all *items* through the stages.

        Args:
            items: Any iterable or async iterable, read as far as there is room. An `Item`, or a
                dict with the keys "id" and "value", brings its own id; anything else gets its
                running number. A generator is closed at the end.
            max_failures: Stop when more items than this failed: 0 stops at the first failure. By
                default failures never stop a run.
            handle_signals: Whether the first Ctrl-C or SIGTERM stops reading *items*, finishes what
                was read, and returns that; and the second ends the run at once, with
                KeyboardInterrupt. In the main thread only, and not on Windows. Handlers that were
                set by ``loop.add_signal_handler`` are lost.

        Returns:
            The successful results in input order, with the failures in ``.failures``.

        Raises:
            TooManyFailuresError: More than *max_failures* items failed.
            PipelineError: *items* cannot be iterated over, or an argument is not valid; or
                something outside antflow cancelled a task of the run; or ``shutdown(drain=False)``
                ended it before all was done.
            Exception: What *items* raised, after what it gave before is finished; that is then in
                `results` and `failures`.
        """
        check_items("Pipeline.run()", items)
        if max_failures is not None:
            check_int("Pipeline.run()", "max_failures", max_failures, at_least=0)
        check_flag("Pipeline.run()", "handle_signals", handle_signals)
        if handle_signals:
            check_main_thread()
        run = self._new_run(max_failures=max_failures, source=items)
        await self._execute(run, handle_signals)
        results = run.state.results()
        if run.state.too_many:
            last = run.state.failures[-1].as_exception()
            count = len(run.state.failures)
            raise TooManyFailuresError(
                f"{count} item{'' if count == 1 else 's'} failed and max_failures is "
                f"{max_failures}; the last: {last}",
                results,
                max_failures,
            ) from last
        return results

    async def _execute(self, run: Run, handle_signals: bool = False) -> None:
        """Take *run* to its end in this task."""
        self._set_latest(run)
        run.finish()
        if handle_signals:
            async with hosting_group() as group:
                await group.start(heed_signals, run)
                await run.execute()
                group.cancel_scope.cancel()
        else:
            with interrupts():
                await run.execute()
        if run.state.too_many:
            return
        if run.interrupted and run.state.unfinished:
            raise KeyboardInterrupt
        run.raise_source_error()
        run.raise_if_cut_short()

    def stream(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        ordered: bool = False,
        buffer_size: int | float = 128,
        window: int | None = None,
    ) -> ResultStream:
        """
        Take *items* through the stages, and give the outcome of each as soon as it is there.

        Failures are results, too: with ``error`` set, and as ``value`` what the failing stage was
        given. Nothing is kept in `results` and `failures`, so memory stays flat however long the
        source is::

            async with pipeline.stream(source) as results:
                async for result in results:
                    ...

        Args:
            items: As for `run()`; may be endless.
            ordered: Whether the results come in the order of the input.
            buffer_size: How many results may wait to be taken; one more waits with each worker, or
                if *ordered*, as many as one completes the order of. 0 hands over result by result;
                math.inf never waits.
            window: If *ordered*, how many items may be between the source and the one who iterates:
                what a slow item makes the others wait is at most this many. By default as many as
                all stages can hold, so that every worker can be busy.

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
        sink = ResultSink(buffer_size, window)
        run = self._new_run(sink=sink, source=items)
        run.finish()
        return ResultStream(run, sink, self._set_latest)

    def open(self, items: Iterable[Any] | AsyncIterable[Any] | None = None) -> PipelineRun:
        """
        Return a live run of its own, for those who want several at once.

            async with pipeline.open() as run:
                await run.feed(batch)
                await run.join()
                print(run.results, run.get_stats())

        Args:
            items: As for `run()`: fed from the start, beside what `PipelineRun.feed` is given.

        Raises:
            PipelineError: *items* cannot be iterated over.
        """
        if items is not None:
            check_items("Pipeline.open()", items)
        return PipelineRun(self._new_run(source=items), self._set_latest)

    async def __aenter__(self) -> Pipeline:
        """
        Let workers live in this block: see `start()`, `feed()` and `join()`.

        Raises:
            PipelineError: The pipeline is entered already.
        """
        if self._block is not None:
            raise PipelineError(
                "the pipeline is entered already. For several live runs at once, write `async with "
                "pipeline.open() as run:` for each."
            )
        block = Block(self._begin_run)
        await block.enter()
        self._block = block
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Wait until all is done that was fed; or, if the body raised, cancel it."""
        assert self._block is not None
        try:
            return await self._block.leave(exc_type, exc, traceback)
        finally:
            self._block = None

    async def start(self) -> None:
        """
        Begin a new run, with clean books, inside of ``async with pipeline:``.

        Without it, the first `feed()` does so.

        Raises:
            PipelineError: There is no block to live in; or the pipeline is started already, and was
                neither joined nor shut down since.
        """
        if self._block is None:
            raise PipelineError(
                "start() needs a block in which the workers can live. Write:\n"
                "    async with pipeline:\n"
                "        await pipeline.start()\n"
                "        await pipeline.feed(items)"
            )
        if self._block.started:
            raise PipelineError(
                "start(): the pipeline is started already. Feed it, or call join() or shutdown() "
                "first."
            )
        self._block.start()

    async def feed(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        target_stage: str | None = None,
        priority: float = DEFAULT_PRIORITY,
    ) -> int:
        """
        Feed *items* to the workers of the block, waiting for room.

        Inside of ``async with pipeline:`` it returns when all *items* are in the first queue; call
        `join()`, or leave the block, to have them finished. Several tasks may feed at once. Tasks
        and callbacks of the pipeline itself may, too: they do not wait for room, which they may
        hold themselves, and what is left of *items* then is read when there is some. (If *items*
        raises after that, the block does at its end.) Outside of a block it takes all *items*
        through the stages, and leaves the outcome in `results` and `failures`.

        If the caller is cancelled while it waits for room, the one item that was read already goes
        on its way.

        Args:
            items: As for `run()`.
            target_stage: The name of the stage to begin with; by default the first.
            priority: Where several items wait for a stage, lower goes first, and equals in order
                of arrival. It holds for these items in all stages.

        Returns:
            How many items were read: all, unless the pipeline was shut down meanwhile, or a task
            of its own did not wait for the rest.

        Raises:
            ValueError: There is no stage with the name *target_stage*.
            PipelineError: *items* cannot be iterated over, *priority* is no number, or the pipeline
                was shut down before.
            Exception: What *items* raised; what it gave before is finished all the same.
        """
        check_items("Pipeline.feed()", items)
        target = check_target("Pipeline.feed()", self.stages, target_stage)
        check_number("Pipeline.feed()", "priority", priority, at_least=-math.inf)
        block = self._block
        if block is None:
            run = self._new_run(source=items, target=target, priority=priority)
            await self._execute(run)
            return run.state.admitted
        run = block.run or block.start()
        block.started = not run.draining
        return await run.feed(items, target, priority, "Call start() for a new one.")

    async def feed_async(
        self,
        items: AsyncIterable[Any],
        target_stage: str | None = None,
        priority: float = DEFAULT_PRIORITY,
    ) -> int:
        """Do the same as `feed()`: the name tells the reader that the source is async."""
        return await self.feed(items, target_stage, priority)

    async def join(self) -> None:
        """
        Wait until everything that was fed is finished, and nobody is feeding.

        It waits for the run of the block, or, outside of one, for the newest run. It returns at
        once if there is none.

        Raises:
            PipelineError: It was called by a task or callback of the run itself, or for a stream:
                it would wait for the caller.
        """
        block = self._block
        run = self._run if block is None else block.run
        if run is not None:
            await run.join()
        # Somebody may have fed it, or started another, before this task had its turn.
        if block is not None and block.run is run and not (run and run.busy):
            block.started = False

    async def shutdown(self, *, drain: bool = True) -> None:
        """
        Stop the newest run, from whatever task, and wait for its end.

        Tasks and callbacks of the run itself may call it as well: they do not wait. Nor does
        anybody wait for a stream to be drained, since that is up to the one who iterates.

        Args:
            drain: Whether what was read so far is finished: then `run()` returns it, and a stream
                goes on until it was given. If False, what runs is cancelled; `run()`, or the
                iteration over a stream, raises PipelineError if that left items unfinished.
        """
        run = self._run
        if self._block is not None and self._block.run is run:
            self._block.started = False
        if run is not None:
            await run.shutdown(drain=drain)

    def _new_run(
        self,
        *,
        max_failures: int | None = None,
        sink: ResultSink | None = None,
        source: Iterable[Any] | AsyncIterable[Any] | None = None,
        target: int = 0,
        priority: float = DEFAULT_PRIORITY,
    ) -> Run:
        streams = sink is not None
        state = RunState(
            self.stages,
            self.collect_results and not streams,
            max_failures,
            keep_failures=not streams,
        )
        tracker = self.status_tracker
        limits = {} if tracker is None else tracker.task_concurrency_limits
        guard = make_guard(self.slow_callback_duration, self.cancel_grace)
        return Run(state, self.events, self._hooks, limits, sink, source, target, priority, guard)

    def _begin_run(self) -> Run:
        run = self._new_run()
        self._set_latest(run)
        return run

    def _set_latest(self, run: Run) -> None:
        """Make *run* the one that results, statistics and `shutdown()` speak of."""
        self._run = run
        self._state = run.state


def _finite_capacity(stage: Stage) -> int:
    return 2 * stage.workers if stage.capacity == math.inf else int(stage.capacity)
