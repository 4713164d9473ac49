"""The workers of one stage in one run: who is there, who is idle, when another is needed."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle
from typing import Any

from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream
from attrs import define, field, frozen

from .._definition.stage import Stage
from .._events.event_bus import EventBus, Subscription
from .._model.items import Record
from .._state.run_state import RunState, StageState
from .._state.worker import Worker
from .._tasks.task_runner import Failure, TaskRunner
from .priority_heap import PriorityHeap, Ticket
from .queues import Inlet, PriorityInlet, SlotQueue
from .result_sink import ResultSink
from .stragglers import Stragglers

# After so many items from one queue, others have a turn. That takes as long as an item or two; the
# price is that tasks which never await hold up the rest for so many.
ITEMS_PER_TURN = 256

# A worker that finds others waiting for room stands by for so many turns of the loop, and again if
# at least so many items were finished meanwhile.
_TURNS_ON_STANDBY = 8
_ITEMS_ON_STANDBY = 64


@frozen(eq=False)
class StageCallbacks:
    """Who is told, with values, that an item left a stage."""

    success: tuple[Subscription, ...] = ()
    failure: tuple[Subscription, ...] = ()
    skip: tuple[Subscription, ...] = ()


@define(eq=False)
class Pool:
    """
    All that the workers of one stage share.

    Workers start when they are needed: there is one from the start; one that takes an item starts
    more if nobody is idle; one that finds nothing to do while two are idle leaves. So a run
    with few items never pays for a thousand workers, and a crowd of idle ones never has to be
    woken.

    Invariant: while the stream is open, somebody is idle, or all `workers` are busy.

    Attributes:
        stream: Out of which items come.
        following: The pool of the next stage; None for the last.
        sink: Where the outcome of each item goes, if the run is a stream.
        overtime: Who has a task of its own at present, in all pools of the run.
        name: That of the stage.
        receive: Takes the next item out of the stream if one is there: its `receive_nowait`.
        turns: Says for each item that is taken whether a turn ends before it.
        room: How many items there can be, in the queue and with those who wait to send them. If a
            turn is as long, the queue is empty when it ends: as long as nobody else runs, there
            will be no more items.
        is_straight: Whether all that is to be done for an item is to call one task, as long as
            nobody hears of its attempts, and to hand over what it returns.
        line: In which order items are taken, once priorities are in use.
        idle: How many workers wait for an item, or have been started and not looked for one yet.
        stuck: How many workers wait for room to hand over what they have.
        freed: How often one has waited for that.
        surge: How many workers to start at the next need: one, once somebody had to wait, or left.
        vacant: How many workers have no task of their own at present.
    """

    state: RunState
    stage_state: StageState
    bus: EventBus
    hooks: StageCallbacks
    runner: TaskRunner
    stream: MemoryObjectReceiveStream[Any]
    entrance: Inlet
    places: SlotQueue | None
    downstream: Pool | None
    sink: ResultSink | None
    stragglers: Stragglers
    start_worker: Callable[[Pool, Worker], None]
    start_back_off: Callable[[Pool, Worker, Record, Failure], None]
    stop: Callable[[], None]
    name: str = field(init=False)
    receive: Callable[[], Any] = field(init=False)
    turns: Iterator[bool] = field(init=False)
    room: float = field(init=False)
    has_fast_path: bool = field(init=False)
    line: PriorityHeap | None = field(default=None, init=False)
    idle: int = field(default=0, init=False)
    blocked: int = field(default=0, init=False)
    unblocked: int = field(default=0, init=False)
    next_batch: int = field(default=1, init=False)
    spare: int = field(init=False)
    # Numbers of workers that left, as a heap: the lowest is used first.
    _free: list[int] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.name = self.stage.name
        self.spare = self.stage.workers
        self.receive = self.stream.receive_nowait
        self.turns = cycle([False] * (ITEMS_PER_TURN - 1) + [True])
        # Items that come back to the stage are in the stream beside the others.
        self.room = self.stage.capacity + (0 if self.places is None else self.stage.workers)
        self.has_fast_path = (
            self.runner.sole_task is not None and self.places is None and not self.hooks.success
        )

    @property
    def waiting(self) -> int:
        """How many items wait for a worker at this instant."""
        ahead = self.stream.statistics()
        return ahead.current_buffer_used + ahead.tasks_waiting_send

    @property
    def stage(self) -> Stage:
        """The definition of the stage."""
        return self.stage_state.stage

    def grow(self) -> None:
        """
        Start more workers, of which at least one is vacant.

        One at first, and twice as many each time that all who were started found something to do:
        so a thousand are there within ten steps, and hardly one that is not needed.
        """
        count = 1
        if self.next_batch > 1:
            count = max(1, min(self.next_batch, self.spare, self.waiting))
        self.next_batch *= 2
        workers = self.stage_state.workers
        for _ in range(count):
            self.spare -= 1
            self.idle += 1
            free = self._free
            worker = workers[heapq.heappop(free)] if free else self.stage_state.add_worker()
            self.start_worker(self, worker)

    async def wait_until_unblocked(self) -> None:
        """
        Wait, as a worker that was started, while others have no room for what they have.

        One more would soon wait beside them. As long as items go on, each of those who are freed
        takes as many as there is room for in one turn, while each that waits costs a turn of its
        own. If they do not, it must begin: the next stage may wait for just the item that it takes.
        """
        state, turns = self.state, 0
        unblocked, settled = self.unblocked, state.settled
        while self.blocked and not state.stopped:
            if turns == _TURNS_ON_STANDBY:
                # Items may be finished that never were in this stage.
                if self.unblocked == unblocked or state.settled - settled < _ITEMS_ON_STANDBY:
                    break
                turns, unblocked, settled = 0, self.unblocked, state.settled
            await checkpoint()
            turns += 1

    async def wait_for_room(self, pending: Awaitable[None]) -> None:
        """Let a worker await *pending*, which hands over what it has."""
        self.blocked += 1
        try:
            await pending
        finally:
            self.blocked -= 1
            self.unblocked += 1

    def use_priorities(self) -> None:
        """From now on, let the most urgent item go first."""
        if self.line is None:
            self.has_fast_path = False
            self.line = PriorityHeap()
            self.entrance = PriorityInlet(self.entrance, self.line)

    def requeue(self, record: Record) -> None:
        """Queue *record*, which kept its place, once more."""
        assert self.places is not None  # stages that retry as a whole have places
        if self.line is None:
            self.places.requeue(record)
        else:
            self.line.join(record)
            self.places.requeue(Ticket(record if record.place is None else record.place))

    def restart(self, worker: Worker) -> None:
        """Let *worker* go on in a new task."""
        self.idle += 1
        self.start_worker(self, worker)

    def leave(self, worker: Worker) -> None:
        """Strike *worker* off; the last one takes the end of the stream on to the next stage."""
        self.spare += 1
        self.next_batch = 1
        heapq.heappush(self._free, worker.number)
        is_last = self.spare == self.stage.workers
        # A stopped run is being cancelled: nobody waits for its end, and somebody may still send.
        if is_last and self.downstream is not None and not self.state.stopped:
            self.downstream.entrance.close()
