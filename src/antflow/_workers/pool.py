"""What the workers of one stage share during a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from attrs import define, field, frozen

from .._backend.context import RunToken
from .._backend.fairness import YIELD_POINTS
from .._backend.task_groups import RunTasks
from .._definition.stage import Stage
from .._events.callbacks import StageCallbacks
from .._events.event_bus import EventBus
from .._state.lifecycle import Completion
from .._state.run_state import RunState
from .._state.stage_state import StageState
from .._state.worker import Worker, worker_name
from .._tasks.task_runner import TaskRunner
from .outlets import FinalOutlet, Outlet
from .queues import StageQueue
from .scaling import Scaling
from .stragglers import Stragglers


@frozen(eq=False)
class RunServices:
    """
    What the pools and feeders of one run share.

    Attributes:
        state: The state of the run.
        completion: Knows when everything that was fed is finished.
        bus: Where events are published.
        token: What stands for the run in the contexts of its loop tasks.
        tasks: How to start and cancel loop tasks of the run.
        stragglers: The workers that have a loop task.
        final_outlet: The outlet of the last stage, and of the failures of all stages.
    """

    state: RunState
    completion: Completion
    bus: EventBus
    token: RunToken
    tasks: RunTasks
    stragglers: Stragglers
    final_outlet: FinalOutlet


@define(eq=False)
class Pool:
    """
    What the workers of one stage share.

    Attributes:
        services: What this pool shares with the other pools of the run.
        stage_state: The workers and counters of the stage.
        callbacks: The callbacks with values of this stage.
        runner: Runs the tasks of the stage.
        queue: Where items come from.
        outlet: Where items go.
        scaling: Decides when workers start.
        name: The name of the stage.
        receive_nowait: The ``receive_nowait`` of the queue.
        yield_points: For each item that is taken, whether the worker yields to the event loop
            before it.
        has_fast_path: Whether it is enough to await one task for each item and to hand over what it
            returns, as long as no task events are published.
        isolates_items: Whether each item has a context of its own.
    """

    services: RunServices
    stage_state: StageState
    callbacks: StageCallbacks
    runner: TaskRunner
    queue: StageQueue
    outlet: Outlet
    scaling: Scaling = field(init=False)
    name: str = field(init=False)
    receive_nowait: Callable[[], Any] = field(init=False)
    yield_points: Iterator[bool] = field(init=False)
    has_fast_path: bool = field(init=False)
    isolates_items: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.name = self.stage.name
        self.scaling = Scaling(self.stage.workers)
        self.receive_nowait = self.queue.receiver.receive_nowait
        self.yield_points = cycle(YIELD_POINTS)
        self.has_fast_path = (
            self.runner.sole_task is not None
            and self.queue.slots is None
            and not self.callbacks.success
        )

    @property
    def stage(self) -> Stage:
        """The definition of the stage."""
        return self.stage_state.stage

    @property
    def first_task(self) -> str:
        """The name of the first task."""
        return self.stage._functions[0].name

    def claim_worker(self) -> Worker:
        """Return the worker to start next: the one with the lowest number that has no loop task."""
        number = self.scaling.claim()
        workers = self.stage_state.workers
        if number == len(workers):
            name = worker_name(self.name, number)
            workers.append(Worker(name, self.name, number, self.first_task))
        return workers[number]

    def isolate_items(self) -> None:
        """From now on, run each item in a context of its own."""
        self.has_fast_path = False
        self.isolates_items = True

    def use_priorities(self) -> None:
        """From now on, let the item with the lowest priority start first."""
        self.has_fast_path = False
        self.queue.use_priorities()
