"""What a run is built from, and how its queues and pools are built from that."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any

from attrs import frozen

from .._backend.task_groups import RunTasks
from .._events.callbacks import StageCallbacks
from .._events.event_bus import EventBus
from .._model.items import DEFAULT_PRIORITY
from .._state.lifecycle import Completion
from .._state.run_state import RunState
from .._tasks.concurrency_limits import share_semaphores
from .._tasks.task_runner import TaskRunner
from .._tasks.watchdog import Watchdog
from .._workers.outlets import NextStage, Outlet, ResultsOutlet, StreamOutlet
from .._workers.pool import Pool, RunServices
from .._workers.queues import open_queue
from .._workers.result_sink import ResultSink
from .._workers.stragglers import Stragglers


@frozen(eq=False)
class RunPlan:
    """
    What one run is built from.

    Attributes:
        state: The state of this run.
        bus: Where events are published.
        callbacks: The callbacks for values, one entry for each stage.
        limits: By task name, how many attempts may run at the same time in all stages together,
            and in all runs with the same object.
        sink: Where the results go, if the run is a stream.
        source: What to feed from the start, if anything.
        target: The index of the stage that *source* is fed to.
        priority: The priority of the items of *source*.
        watchdog: Watches each call of a task, if given.
    """

    state: RunState
    bus: EventBus
    callbacks: tuple[StageCallbacks, ...]
    limits: Mapping[str, int]
    sink: ResultSink | None = None
    source: Iterable[Any] | AsyncIterable[Any] | None = None
    target: int = 0
    priority: float = DEFAULT_PRIORITY
    watchdog: Watchdog | None = None


def build_pools(
    plan: RunPlan, completion: Completion, tasks: RunTasks, stragglers: Stragglers
) -> list[Pool]:
    """Return the pools of a run, in the order of its stages."""
    state, sink = plan.state, plan.sink
    final = (
        ResultsOutlet(state.results, completion) if sink is None else StreamOutlet(sink, completion)
    )
    services = RunServices(state, completion, plan.bus, tasks, stragglers, final)
    semaphores = share_semaphores(plan.limits) if plan.limits else {}
    pools: list[Pool] = []
    outlet: Outlet = final
    # From the last stage to the first, because each hands over to the next.
    for stage_state, callbacks in zip(reversed(state.stages), reversed(plan.callbacks)):
        stage = stage_state.stage
        queue = open_queue(stage)
        runner = TaskRunner(stage, plan.bus, semaphores, plan.watchdog)
        if pools:
            # Each worker may wait to send one item.
            pools[0].queue.max_queued += stage.workers
        pools.insert(0, Pool(services, stage_state, callbacks, runner, queue, outlet))
        outlet = NextStage(queue, stage_state, stage.name, plan.bus)
    return pools
