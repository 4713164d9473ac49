"""`RunPlan`: what a run is built from; and the construction of its queues and pools."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any

from attrs import frozen

from .._backend.context import RunToken
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
        callbacks: The callbacks with values, one entry for each stage.
        limits: By task name, how many attempts may run at the same time in all stages together,
            and in all runs that are given the same object.
        sink: Where the results go, if the run is a stream.
        source: What to read from the start, if anything.
        target: The index of the stage that the items of *source* enter.
        priority: The priority of the items of *source*.
        watchdog: If given, it watches each call of a task.
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
    plan: RunPlan,
    completion: Completion,
    token: RunToken,
    tasks: RunTasks,
    stragglers: Stragglers,
) -> list[Pool]:
    """Return the pools of a run, in the order of its stages."""
    state, sink = plan.state, plan.sink
    final = (
        ResultsOutlet(state.results, completion) if sink is None else StreamOutlet(sink, completion)
    )
    services = RunServices(state, completion, plan.bus, token, tasks, stragglers, final)
    semaphores = share_semaphores(plan.limits) if plan.limits else {}
    pools: list[Pool] = []
    outlet: Outlet = final
    # From the last stage to the first, because each stage needs the queue of the next.
    for stage_state, callbacks in zip(reversed(state.stages), reversed(plan.callbacks)):
        stage = stage_state.stage
        queue = open_queue(stage)
        runner = TaskRunner(stage, plan.bus, semaphores, plan.watchdog)
        if pools:
            # Each worker of this stage may hold one item that waits for room there.
            pools[0].queue.max_queued += stage.workers
        pools.insert(0, Pool(services, stage_state, callbacks, runner, queue, outlet))
        outlet = NextStage(queue, stage_state, stage.name, plan.bus)
    return pools
