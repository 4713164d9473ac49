"""The face of antflow: a pipeline is a definition that can be run, and asked how it goes."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Iterable
from typing import Any

from attrs import define, field, setters

from ._bus import EventBus, Subscription
from ._callables import handler_name
from ._checks import check_whole, refuse
from ._errors import PipelineError, TooManyFailuresError, show
from ._items import FailedItem, Item, Results
from ._pool import StageHooks
from ._run import execute
from ._stage import Callback, Stage, check_stages
from ._state import RunState
from ._stats import DashboardSnapshot, ErrorSummary, PipelineStats, WorkerMetrics, WorkerState
from ._tracker import StatusTracker


def _check_collect_results(pipeline: Pipeline, attribute: Any, flag: object) -> None:
    if not isinstance(flag, bool):
        hint = "Write status_tracker=…." if isinstance(flag, StatusTracker) else None
        refuse("Pipeline", "collect_results", "True or False", flag, hint)


def _check_tracker(pipeline: Pipeline, attribute: Any, tracker: object) -> None:
    if tracker is not None and not isinstance(tracker, StatusTracker):
        hint = "Write status_tracker=StatusTracker()." if tracker is StatusTracker else None
        refuse("Pipeline", "status_tracker", "a StatusTracker or None", tracker, hint)


@define(eq=False, on_setattr=setters.frozen)
class Pipeline:
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

    Attributes:
        events: The bus on which `StatusEvent` and `TaskEvent` are published: subscribe here to
            hear them without a tracker.

    Raises:
        StageValidationError: An argument is not valid.
    """

    stages: tuple[Stage, ...] = field(converter=check_stages)
    collect_results: bool = field(default=True, validator=_check_collect_results)
    status_tracker: StatusTracker | None = field(default=None, validator=_check_tracker)
    events: EventBus = field(factory=EventBus, init=False, repr=False)
    _hooks: tuple[StageHooks, ...] = field(init=False, repr=False, on_setattr=setters.NO_OP)
    # The books of the newest run: the only thing here that changes.
    _state: RunState = field(init=False, repr=False, on_setattr=setters.NO_OP)

    def __attrs_post_init__(self) -> None:
        self._hooks = _hooks(self.stages, self.status_tracker)
        self._state = RunState(self.stages)
        if self.status_tracker is not None:
            self.status_tracker.connect(self.events)

    async def run(
        self, items: Iterable[Any] | AsyncIterable[Any], *, max_failures: int | None = None
    ) -> Results:
        """
        Take all *items* through the stages.

        Args:
            items: Any iterable or async iterable, read as far as there is room. An `Item`, or a
                dict with the keys "id" and "value", brings its own id; anything else gets its
                running number. A generator is closed at the end.
            max_failures: Stop when more items than this failed: 0 stops at the first failure. By
                default failures never stop a run.

        Returns:
            The successful results in input order, with the failures in ``.failures``.

        Raises:
            TooManyFailuresError: More than *max_failures* items failed.
            PipelineError: *items* cannot be iterated over, or *max_failures* is not valid; or
                something outside antflow cancelled a task of the run.
            Exception: What *items* raised, after what it gave before is finished; that is then in
                `results` and `failures`.
        """
        _check_items(items)
        if max_failures is not None:
            check_whole("Pipeline.run()", "max_failures", max_failures, at_least=0)
        state = RunState(self.stages, self.collect_results, max_failures)
        self._state = state
        limits = {} if self.status_tracker is None else self.status_tracker.task_concurrency_limits
        await execute(items, state, self.events, self._hooks, limits)
        results = state.results()
        if state.stopped:
            last = state.failures[-1].as_exception()
            count = len(state.failures)
            raise TooManyFailuresError(
                f"{count} item{'' if count == 1 else 's'} failed and max_failures is "
                f"{max_failures}; the last: {last}",
                results,
                max_failures,
            ) from last
        return results

    async def feed(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        """
        Take all *items* through the stages, and leave the outcome in `results` and `failures`.

        Args:
            items: As for `run()`.

        Raises:
            PipelineError: *items* cannot be iterated over.
            Exception: What *items* raised, after what it gave before is finished.
        """
        await self.run(items)

    async def feed_async(self, items: AsyncIterable[Any]) -> None:
        """Do the same as `feed()`: the name tells the reader that the source is async."""
        await self.feed(items)

    async def __aenter__(self) -> Pipeline:
        """
        Return the pipeline.

        Whatever is run inside the block has ended, and is cleaned up, when its call returns or
        raises; so there is nothing left to do at the end of the block.
        """
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Let the body's own exception pass."""

    @property
    def results(self) -> Results:
        """The results of the newest run so far, in input order."""
        return self._state.results()

    @property
    def failures(self) -> list[FailedItem]:
        """The failures of the newest run so far, in the order in which they happened."""
        return list(self._state.failures)

    def get_stats(self) -> PipelineStats:
        """Return where the items of the newest run are."""
        return self._state.pipeline_stats()

    def get_worker_names(self) -> dict[str, list[str]]:
        """Return the names of all workers, by stage name."""
        return self._state.worker_names()

    def get_worker_states(self) -> dict[str, WorkerState]:
        """Return what each worker is doing, by worker name."""
        return self._state.worker_states()

    def get_worker_metrics(self) -> dict[str, WorkerMetrics]:
        """Return what each worker did in the newest run, by worker name."""
        return self._state.worker_metrics()

    def get_error_summary(self) -> ErrorSummary:
        """Return the failures of the newest run, counted."""
        return self._state.error_summary()

    def get_dashboard_snapshot(self) -> DashboardSnapshot:
        """Return all of these figures, taken at one instant."""
        return self._state.snapshot()


def _hooks(stages: tuple[Stage, ...], tracker: StatusTracker | None) -> tuple[StageHooks, ...]:
    """Collect for each stage whom to tell of its items: its own callbacks, then the tracker's."""

    def own(stage: Stage, name: str, callback: Callback | None) -> tuple[Subscription, ...]:
        if callback is None:
            return ()
        what = f"{name} callback {handler_name(callback)!r} of stage {stage.name!r}"
        return (Subscription(callback, what),)

    def of_tracker(subscription: Subscription | None) -> tuple[Subscription, ...]:
        return () if subscription is None else (subscription,)

    leaves = of_tracker(None if tracker is None else tracker.on_success)
    fails = of_tracker(None if tracker is None else tracker.on_failure)
    return tuple(
        StageHooks(
            own(stage, "on_success", stage.on_success) + (leaves if stage is stages[-1] else ()),
            own(stage, "on_failure", stage.on_failure) + fails,
            own(stage, "on_skip", stage.on_skip) + (leaves if stage is stages[-1] else ()),
        )
        for stage in stages
    )


def _check_items(items: object) -> None:
    is_one_item = isinstance(items, (str, bytes, Item)) or (
        isinstance(items, dict) and "id" in items
    )
    if isinstance(items, (Iterable, AsyncIterable)) and not is_one_item:
        return
    shown = f"{show(items)} ({type(items).__name__})"
    hint = ""
    if is_one_item:
        hint = " It looks like a single item: put it in a list."
    elif callable(items):
        hint = " It is a function: call it, and give what it returns."
    elif inspect.isawaitable(items):
        hint = " It is an awaitable: await it first, and give what it returns."
        if inspect.iscoroutine(items):
            items.close()
    raise PipelineError(
        f"Pipeline.run(): items must be an iterable or async iterable, got {shown}.{hint}"
    )
