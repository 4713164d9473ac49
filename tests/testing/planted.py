"""
Bugs to plant in the engine. Each function is named after its bug and plants it by a monkeypatch.

Most of them change a line of the engine's source, as a mistake in writing it would.
"""

from __future__ import annotations

import heapq
import inspect
import math
import textwrap
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow._api.result_stream import ResultStream
from antflow._events.publishing import announce
from antflow._model.results import Results
from antflow._run.feeder import Feeder
from antflow._state.lifecycle import Completion
from antflow._state.result_store import ResultStore
from antflow._workers import outcomes, worker_loop
from antflow._workers.outlets import StreamOutlet
from antflow._workers.pool import Pool
from antflow._workers.queues import PriorityHeap, PriorityInlet, SlotQueue
from antflow._workers.result_sink import ResultSink
from antflow._workers.scaling import Scaling

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
    patch.setattr(ResultStore, "fail", lambda self, failed: None)


def deliver_some_results_twice(patch: Patch) -> None:
    keep = ResultStore.keep

    def twice(self: ResultStore, record: Any) -> None:
        keep(self, record)
        if record.sequence_id:
            self._outcomes[record.sequence_id - 1] = record.identified()

    patch.setattr(ResultStore, "keep", twice)


def keep_results_in_order_of_arrival(patch: Patch) -> None:
    keep, results = ResultStore.keep, ResultStore.results
    arrivals: WeakKeyDictionary[ResultStore, list[int]] = WeakKeyDictionary()

    def arrive(self: ResultStore, record: Any) -> None:
        keep(self, record)
        arrivals.setdefault(self, []).append(record.sequence_id)

    def as_they_came(self: ResultStore) -> Results:
        made = {result.sequence_id: result for result in results(self)}
        return Results((made[number] for number in arrivals.pop(self, [])), self.failures)

    patch.setattr(ResultStore, "keep", arrive)
    patch.setattr(ResultStore, "results", as_they_came)


def publish_after_sending(patch: Patch) -> None:
    async def send_and_announce(record: Any, pool: Pool) -> None:
        await pool.queue.inlet.send(record)
        await announce(pool.services.bus, "queued", record, pool.name, None)

    changes = {
        "if self._bus.status_subscriptions:": "if False:",
        "inlet.send_nowait(record)": "raise WouldBlock",
        "inlet.send(record)": "send_and_announce(record, pool)",
    }
    patch.setattr("antflow._run.feeder.send_and_announce", send_and_announce, raising=False)
    edit(patch, Feeder._admit, changes)


def let_the_last_go_first(patch: Patch) -> None:
    def push(self: PriorityHeap, record: Any) -> None:
        arrival = next(self._arrivals)
        heapq.heappush(self._heap, (record.priority - arrival, arrival, record))

    patch.setattr(PriorityHeap, "push", push)


def start_a_worker_too_many(patch: Patch) -> None:
    count = Scaling.__attrs_post_init__

    def count_one_too_many(self: Scaling) -> None:
        count(self)
        self.spare += 1

    patch.setattr(Scaling, "__attrs_post_init__", count_one_too_many)


def forget_the_bounds(patch: Patch) -> None:
    def unbounded(capacity: float) -> Any:
        return anyio.create_memory_object_stream[Any](math.inf)

    class Streams:
        def __class_getitem__(cls, kind: Any) -> Any:
            return unbounded

    patch.setattr("antflow._workers.queues.create_memory_object_stream", Streams)


def give_one_more_place_for_each_retry(patch: Patch) -> None:
    requeue = SlotQueue.requeue

    def add_and_requeue(self: SlotQueue, item: Any) -> None:
        self._limiter.total_tokens += 1
        requeue(self, item)

    patch.setattr(SlotQueue, "requeue", add_and_requeue)


def free_the_place_of_an_item_that_backs_off(patch: Patch) -> None:
    edit(
        patch,
        outcomes.back_off,
        {
            "try:": "slots = pool.queue.slots; slots.release(slots.take_slot(record))\n    try:",
            "pool.queue.requeue(record)": "await pool.queue.inlet.send(record)",
        },
    )


def close_the_next_stage_when_the_first_worker_leaves(patch: Patch) -> None:
    edit(patch, worker_loop.work, {"if is_last and": "if"})


def leave_although_nobody_else_is_idle(patch: Patch) -> None:
    edit(patch, worker_loop.work, {"if scaling.idle >= 2:": "if worker.processed:"})


def send_a_retry_twice(patch: Patch) -> None:
    edit(patch, SlotQueue.requeue, {"(item)": "(item); self._stream.send_nowait(item)"})


def read_one_item_more_than_the_window(patch: Patch) -> None:
    edit(patch, ResultSink.enter, {">= self.window": "> self.window"})


def settle_twice(patch: Patch) -> None:
    edit(patch, Completion.settle, {"self.settled + 1": "self.settled + 2"})


def never_settle_what_was_skipped(patch: Patch) -> None:
    right = "await outlet.hand_over"
    wrong = f"status == 'skipped' and outlet is pool.services.final_outlet or {right}"
    edit(patch, outcomes.pass_on, {right: wrong})


def leave_a_gap_in_the_order_for_what_failed(patch: Patch) -> None:
    wrong = "None if self.sink.window else self.sink.put(record.result(error))"
    edit(patch, StreamOutlet.hand_over_failure, {"self.sink.put(record.result(error))": wrong})


def send_the_ticket_before_the_record_stands_in_line(patch: Patch) -> None:
    edit(
        patch,
        PriorityInlet.send,
        {
            "self._heap.push(record)": "pass",
            "send(Ticket())": "send(Ticket()); self._heap.push(record)",
        },
    )


def forget_to_wake_the_consumer(patch: Patch) -> None:
    edit(patch, ResultSink.put, {"self.wake()": "pass"})


def lose_what_a_cancelled_consumer_had_taken(patch: Patch) -> None:
    edit(patch, ResultStream.__anext__, {"self._since_yield += 1": "await checkpoint()"})


def sleep_through_the_wake_up(patch: Patch) -> None:
    patch.setattr("antflow._workers.result_sink.checkpoint", checkpoint, raising=False)
    right = "if self._arrived is None:"
    edit(patch, ResultSink.wait, {right: f"await checkpoint()\n    {right}"})


def stop_a_feeder_with_an_item_in_hand(patch: Patch) -> None:
    edit(patch, Feeder.stop, {"if not self._sending:": "if True:"})


def take_an_earlier_quiet_for_this_one(patch: Patch) -> None:
    edit(patch, Completion.expect_feed, {"if self.is_open and": "if False and"})


def take_a_cancellation_for_a_failure(patch: Patch) -> None:
    patch.setattr("antflow._tasks.task_runner.is_item_failure", lambda error: True)
    patch.setattr("antflow._workers.worker_loop.is_item_failure", lambda error: True)


def end_a_run_that_is_quiet_for_a_moment(patch: Patch) -> None:
    edit(patch, Completion.check_idle, {"if self.ends_when_idle:": "if True:"})
