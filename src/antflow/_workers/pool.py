"""What the workers of one stage share during a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from attrs import define, field, frozen

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
        completion: When everything that was fed is finished.
        bus: Where events are published.
        tasks: How to start and cancel loop tasks of the run.
        stragglers: The workers that have a loop task.
        final: Where finished items and failures go.
    """

    state: RunState
    completion: Completion
    bus: EventBus
    tasks: RunTasks
    stragglers: Stragglers
    final: FinalOutlet


@define(eq=False)
class Pool:
    """
    What the workers of one stage share.

    Attributes:
        services: What this pool shares with the others of the run.
        stage_state: The workers and counters of the stage.
        callbacks: The callbacks for values at this stage.
        runner: The tasks of the stage.
        queue: Where items come from.
        outlet: Where items go to.
        scaling: When workers start and leave.
        name: The name of the stage.
        receive: Takes the next item out of the queue if there is one: its ``receive_nowait``.
        yield_points: For each item that is taken, whether a worker yields to the loop before it.
        has_fast_path: Whether it is enough to await one task for an item and to hand over what it
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
    receive: Callable[[], Any] = field(init=False)
    yield_points: Iterator[bool] = field(init=False)
    has_fast_path: bool = field(init=False)
    isolates_items: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.name = self.stage.name
        self.scaling = Scaling(self.stage.workers)
        self.receive = self.queue.receive.receive_nowait
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
        return self.stage.functions[0].name

    def claim_worker(self) -> Worker:
        """Return the worker that starts next: the lowest number without a loop task."""
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
        """From now on, let the most urgent item start first."""
        self.has_fast_path = False
        self.queue.use_priorities()
