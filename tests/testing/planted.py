"""
Bugs to plant in the engine. Each function is named after its bug and plants it by a monkeypatch.

Most of them change a line of the engine's source, as a mistake in writing it would.
"""

from __future__ import annotations

import heapq
import inspect
import math
import textwrap
from time import time
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow._api.result_stream import ResultStream
from antflow._events.publishing import publish
from antflow._model.items import IdentifiedValue, Results
from antflow._run.feeder import Feeder
from antflow._run.run import Run
from antflow._state.run_state import RunState
from antflow._workers import worker_loop as _flow
from antflow._workers.pool import Pool
from antflow._workers.priority_heap import PriorityHeap
from antflow._workers.queues import PriorityInlet, SlotQueue
from antflow._workers.result_sink import ResultSink

Patch = pytest.MonkeyPatch


def edit(patch: Patch, function: Any, changes: dict[str, str]) -> None:
    """Replace each key of *changes* with its value in the source of *function*."""
    source = textwrap.dedent(inspect.getsource(function))
    for right, wrong in changes.items():
        assert source.count(right) == 1, right
        source = source.replace(right, wrong)
    names: dict[str, Any] = {}
    code = compile(f"from __future__ import annotations\n{source}", "<planted>", "exec")
    exec(code, function.__globals__, names)
    patch.setattr(function, "__code__", names[function.__name__].__code__)


def forget_failures(patch: Patch) -> None:
    patch.setattr(RunState, "fail", lambda self, failed: None)


def deliver_some_results_twice(patch: Patch) -> None:
    deliver = RunState.deliver

    def twice(self: RunState, record: Any) -> None:
        deliver(self, record)
        if record.sequence_id:
            self._kept[record.sequence_id - 1] = IdentifiedValue(record)

    patch.setattr(RunState, "deliver", twice)


def keep_results_in_order_of_arrival(patch: Patch) -> None:
    deliver, results = RunState.deliver, RunState.results
    arrivals: WeakKeyDictionary[RunState, list[int]] = WeakKeyDictionary()

    def arrive(self: RunState, record: Any) -> None:
        deliver(self, record)
        arrivals.setdefault(self, []).append(record.sequence_id)

    def as_they_came(self: RunState) -> Results:
        made = {result.sequence_id: result for result in results(self)}
        return Results((made[number] for number in arrivals.pop(self, [])), self.failures)

    patch.setattr(RunState, "deliver", arrive)
    patch.setattr(RunState, "results", as_they_came)


def publish_after_sending(patch: Patch) -> None:
    async def send_and_announce(record: Any, pool: Pool) -> None:
        await pool.entrance.send(record)
        pending = publish("queued", record, pool, None, time())
        if pending is not None:
            await pending

    changes = {
        "if pool.bus.status_subscriptions:": "if False:",
        "pool.entrance.send_nowait(record)": "raise WouldBlock",
        "pool.entrance.send(record)": "send_and_announce(record, pool)",
    }
    patch.setattr("antflow._run.feeder.send_and_announce", send_and_announce, raising=False)
    edit(patch, Feeder._admit, changes)


def let_the_last_go_first(patch: Patch) -> None:
    def join(self: PriorityHeap, record: Any) -> None:
        arrival = next(self._arrivals)
        heapq.heappush(self._heap, (record.priority - arrival, arrival, record))

    patch.setattr(PriorityHeap, "join", join)


def start_a_worker_too_many(patch: Patch) -> None:
    count = Pool.__attrs_post_init__

    def count_one_too_many(self: Pool) -> None:
        count(self)
        self.spare += 1

    patch.setattr(Pool, "__attrs_post_init__", count_one_too_many)


def forget_the_bounds(patch: Patch) -> None:
    def unbounded(capacity: float) -> Any:
        return anyio.create_memory_object_stream[Any](math.inf)

    class Streams:
        def __class_getitem__(cls, kind: Any) -> Any:
            return unbounded

    patch.setattr("antflow._workers.queues.create_memory_object_stream", Streams)


def give_one_more_place_for_each_retry(patch: Patch) -> None:
    requeue = SlotQueue.requeue

    def add_and_take_back(self: SlotQueue, item: Any) -> None:
        self._limiter.total_tokens += 1
        requeue(self, item)

    patch.setattr(SlotQueue, "requeue", add_and_take_back)


def free_the_place_of_an_item_that_backs_off(patch: Patch) -> None:
    edit(
        patch,
        _flow.back_off,
        {
            "try:": "pool.places.release(pool.places.place_of(record))\n    try:",
            "pool.requeue(record)": "await pool.entrance.send(record)",
        },
    )


def close_the_next_stage_when_the_first_worker_leaves(patch: Patch) -> None:
    edit(patch, Pool.leave, {"if is_last and": "if"})


def leave_although_nobody_else_is_idle(patch: Patch) -> None:
    edit(patch, _flow.work, {"if pool.idle >= 2:": "if worker.processed:"})


def send_a_retry_twice(patch: Patch) -> None:
    edit(patch, SlotQueue.requeue, {"(item)": "(item); self._stream.send_nowait(item)"})


def read_one_item_more_than_the_window(patch: Patch) -> None:
    edit(patch, ResultSink.enter, {">= self.window": "> self.window"})


def settle_twice(patch: Patch) -> None:
    edit(patch, RunState.settle, {"self.settled + 1": "self.settled + 2"})


def never_settle_what_was_skipped(patch: Patch) -> None:
    right = "pool.state.settle()"
    edit(patch, _flow.process, {right: f"status == 'skipped' or {right}"})


def leave_a_gap_in_the_order_for_what_failed(patch: Patch) -> None:
    edit(patch, _flow._fail, {"sink is not None:": "sink is not None and not pool.sink.window:"})


def send_the_ticket_before_the_record_stands_in_line(patch: Patch) -> None:
    edit(
        patch,
        PriorityInlet.send,
        {
            "self._line.join(record)": "pass",
            "send(Ticket())": "send(Ticket()); self._line.join(record)",
        },
    )


def forget_to_wake_the_consumer(patch: Patch) -> None:
    edit(patch, ResultSink.put, {"self.wake()": "pass"})


def lose_what_a_cancelled_consumer_had_taken(patch: Patch) -> None:
    edit(patch, ResultStream.__anext__, {"self._given += 1": "await checkpoint()"})


def sleep_through_the_wake_up(patch: Patch) -> None:
    patch.setattr("antflow._workers.result_sink.checkpoint", checkpoint, raising=False)
    right = "if self._arrived is None:"
    edit(patch, ResultSink.wait, {right: f"await checkpoint()\n    {right}"})


def stop_a_feeder_with_an_item_in_hand(patch: Patch) -> None:
    edit(patch, Feeder.stop, {"if not self._sending:": "if True:"})


def take_an_earlier_quiet_for_this_one(patch: Patch) -> None:
    edit(patch, Run.feed, {"if self._idle.is_set() and": "if False and"})


def take_a_cancellation_for_a_failure(patch: Patch) -> None:
    patch.setattr("antflow._tasks.task_runner.is_item_failure", lambda error: True)
    patch.setattr("antflow._workers.worker_loop.is_item_failure", lambda error: True)


def end_a_run_that_is_quiet_for_a_moment(patch: Patch) -> None:
    edit(patch, Run._check_idle, {"if self._finishing:": "if True:"})
