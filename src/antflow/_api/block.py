"""What a pipeline can do inside ``async with pipeline:``: start, feed, join, shut down."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar

from .._backend.context import memberships
from .._definition.inputs import check_items, check_target
from .._definition.stage import Stage
from .._definition.validation import check_number
from .._events.event_bus import EventBus
from .._model.errors import PipelineError
from .._model.items import DEFAULT_PRIORITY
from .._run.run import Run
from .._run.run_host import RunHost
from .._state.inspection import Inspection

_Pipeline = TypeVar("_Pipeline", bound="BlockMethods")


class Block:
    """
    The state of a pipeline while it is inside ``async with``.

    Attributes:
        host: Hosts the runs of the block.
        started: Whether the pipeline was started or fed, and neither joined nor shut down since.
    """

    def __init__(self, host: RunHost) -> None:
        self.host = host
        self.started = False


class BlockMethods(Inspection):
    """The methods of `Pipeline` for live runs."""

    __slots__ = ()

    stages: tuple[Stage, ...]
    events: EventBus
    handle_signals: bool
    _run: Run | None
    _block: Block | None

    # `Pipeline` defines these.
    _new_run: Callable[..., Run]
    _execute: Callable[[Run, bool], Awaitable[None]]
    _set_latest: Callable[[Run], None]

    async def __aenter__(self: _Pipeline) -> _Pipeline:
        """
        Open a block in which workers can live: see `start()`, `feed()` and `join()`.

        Raises:
            PipelineError: The pipeline has already been entered.
        """
        if self._block is not None:
            raise PipelineError(
                "the pipeline is entered already. For several live runs at the same time, write "
                "`async with pipeline.open() as run:` for each."
            )
        self._block = Block(await RunHost(handle_signals=self.handle_signals).__aenter__())
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
            Exception: What a source raised that no caller of `feed()` waited for.
        """
        assert self._block is not None
        try:
            return await self._block.host.__aexit__(exc_type, exc, traceback)
        finally:
            self._block = None  # type: ignore[misc]  # a slot of Pipeline
            # A cancellation that passes here refers to this frame.
            del exc, traceback

    async def start(self) -> None:
        """
        Begin a new run, with new results and counters, inside ``async with pipeline:``.

        If it is not called, the first `feed()` begins the run.

        Raises:
            PipelineError: There is no block in which the workers can live; or the pipeline was
                started before, and neither joined nor shut down since.
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
        self._start_in(self._block)

    async def feed(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        target_stage: str | None = None,
        priority: float = DEFAULT_PRIORITY,
    ) -> int:
        """
        Feed *items* to the workers of the block, waiting for room.

        Inside ``async with pipeline:`` it returns when all *items* are in the first queue; call
        `join()`, or leave the block, to wait until they are finished. Several loop tasks may feed
        at once. Outside a block it takes all *items* through the stages, and leaves the outcome in
        `results` and `failures`.

        A task or callback of the pipeline feeds the run that it belongs to, however that was
        started, and the run ends when these items are finished, too. It does not wait for room,
        which may depend on itself: the rest of *items* is read when there is room. (If *items*
        raises after that, the run raises it at its end.) Once the run was shut down, it feeds
        nothing. A loop task that a task has started feeds the same run, and waits for room.

        If the caller is cancelled while it waits for room, the one item that was already read is
        still processed.

        Args:
            items: As for `run()`.
            target_stage: The name of the stage to begin with; by default the first.
            priority: If several items wait for a stage, the one with the lowest priority starts
                first; items of equal priority start in order of arrival. The priority applies to
                these items at all stages.

        Returns:
            How many items were read: all, unless the pipeline was shut down meanwhile, or a task
            of its own did not wait for the rest; 0 if that task's run was shut down before.

        Raises:
            ValueError: There is no stage with the name *target_stage*.
            PipelineError: *items* cannot be iterated over, *priority* is not a number, or the
                pipeline was shut down before, or runs in another event loop.
            Exception: What *items* raised; the items before that are still processed.
        """
        owner = "Pipeline.feed()"
        check_items(owner, items)
        target = check_target(owner, self.stages, target_stage)
        check_number(owner, "priority", priority, at_least=-math.inf)
        own = self._own_run()
        if own is not None:
            return await own.feed(items, target, priority, "")
        block = self._block
        if block is None:
            run = self._new_run(source=items, target=target, priority=priority)
            await self._execute(run, self.handle_signals)
            return run.completion.admitted
        run = block.host.run or self._start_in(block)
        block.started = run.state.lifecycle.takes_input
        return await run.feed(items, target, priority, "Call start() for a new one.")

    async def feed_async(
        self,
        items: AsyncIterable[Any],
        target_stage: str | None = None,
        priority: float = DEFAULT_PRIORITY,
    ) -> int:
        """Do the same as `feed()`; the name tells the reader that the source is async."""
        return await self.feed(items, target_stage, priority)

    async def join(self) -> None:
        """
        Wait until everything that was fed is finished, and no source is being read.

        It waits for the run of the block, or, outside a block, for the newest run. It returns at
        once if there is none.

        Raises:
            PipelineError: The caller is a task or callback of the run, or the run is a stream that
                has not ended: `join()` would wait for its own caller. Or it was called in another
                event loop than that of the run.
        """
        block = self._block
        run = self._addressed_run()
        if run is not None:
            await run.join()
        # Meanwhile another loop task may have fed this run, or started another one.
        is_idle = run is None or run.completion.idle.is_set()
        if block is not None and block.host.run is run and is_idle:
            block.started = False

    async def shutdown(self, *, drain: bool = True) -> None:
        """
        Stop a run, from any loop task of its event loop, and wait for its end.

        It is the run that the caller belongs to, if it is a task or callback of the pipeline; else
        that of the block; else, outside a block, the newest.

        Tasks and callbacks of the run itself may call it as well; they do not wait. It never waits
        for a stream to be drained, because that depends on the consumer of the stream.

        Args:
            drain: If True, the items that were already read are finished: `run()` returns their
                results, and a stream yields their outcomes. If False, running tasks are cancelled;
                if that leaves items unfinished, `run()` or the iteration over the stream raises
                PipelineError.

        Raises:
            PipelineError: It was called in another event loop, or in a thread. The message says
                what to write there.
        """
        run = self._addressed_run()
        if self._block is not None and self._block.host.run is run:
            self._block.started = False
        if run is not None:
            await run.shutdown(drain=drain)

    def _own_run(self) -> Run | None:
        """Return the innermost run of this pipeline that the caller belongs to, if there is one."""
        runs = (token.run for token, _ in memberships())
        return next((run for run in runs if run is not None and run.bus is self.events), None)

    def _addressed_run(self) -> Run | None:
        """Return the caller's own run, else that of the block, else the newest."""
        return self._own_run() or (self._run if self._block is None else self._block.host.run)

    def _start_in(self, block: Block) -> Run:
        if block.host.is_leaving:
            raise PipelineError(
                "the pipeline is being left: its block waits until everything that was fed is "
                "finished, and starts no new run. Feed it before the body ends, or from a task of "
                "the pipeline."
            )
        block.started = True
        run = self._new_run()
        self._set_latest(run)
        block.host.start(run)
        return run
