"""
Bugs to plant in the engine: each function is named after a bug, and plants it by monkeypatching.

Most of them change one line of the engine's source, as a programming mistake would.
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
from antflow._model.results import Results
from antflow._run.feeder import Feeder
from antflow._run.outbox import Outbox
from antflow._state.lifecycle import Completion
from antflow._state.result_store import ResultStore
from antflow._workers import outcomes, worker_loop
from antflow._workers.outlets import StreamOutlet
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


def drop_failures(patch: Patch) -> None:
    patch.setattr(ResultStore, "fail", lambda self, failed: None)


def return_some_results_twice(patch: Patch) -> None:
    keep = ResultStore.keep

    def twice(self: ResultStore, record: Any) -> None:
        keep(self, record)
        if record.sequence_id:
            self._outcomes[record.sequence_id - 1] = record.identified()

    patch.setattr(ResultStore, "keep", twice)


def return_results_in_order_of_completion(patch: Patch) -> None:
    keep, results = ResultStore.keep, ResultStore.results
    completed: WeakKeyDictionary[ResultStore, list[int]] = WeakKeyDictionary()

    def keep_and_note(self: ResultStore, record: Any) -> None:
        keep(self, record)
        completed.setdefault(self, []).append(record.sequence_id)

    def in_order_of_completion(self: ResultStore) -> Results:
        made = {result.sequence_id: result for result in results(self)}
        return Results((made[number] for number in completed.pop(self, [])), self.failures)

    patch.setattr(ResultStore, "keep", keep_and_note)
    patch.setattr(ResultStore, "results", in_order_of_completion)


def publish_queued_after_sending(patch: Patch) -> None:
    changes = {
        "if self._bus.status_subscriptions:": "if False:",
        "pool.queue.inlet.send_nowait(record)": "raise WouldBlock",
    }
    edit(patch, Feeder._admit, changes)
    announcing = "await announce(services.bus, 'queued', record, self.pool.name, None)"
    edit(patch, Outbox._send_all, {"self.unsent.popleft()": f"self.unsent.popleft(); {announcing}"})


def start_items_in_lifo_order(patch: Patch) -> None:
    def push(self: PriorityHeap, record: Any) -> None:
        arrival = next(self._arrivals)
        heapq.heappush(self._heap, (record.priority - arrival, arrival, record))

    patch.setattr(PriorityHeap, "push", push)


def start_one_worker_too_many(patch: Patch) -> None:
    count = Scaling.__attrs_post_init__

    def count_one_too_many(self: Scaling) -> None:
        count(self)
        self.spare += 1

    patch.setattr(Scaling, "__attrs_post_init__", count_one_too_many)


def make_queues_unbounded(patch: Patch) -> None:
    def unbounded(capacity: float) -> Any:
        return anyio.create_memory_object_stream[Any](math.inf)

    class Streams:
        def __class_getitem__(cls, kind: Any) -> Any:
            return unbounded

    patch.setattr("antflow._workers.queues.create_memory_object_stream", Streams)


def add_a_slot_for_each_retry(patch: Patch) -> None:
    requeue = SlotQueue.requeue

    def add_and_requeue(self: SlotQueue, item: Any) -> None:
        self._limiter.total_tokens += 1
        requeue(self, item)

    patch.setattr(SlotQueue, "requeue", add_and_requeue)


def release_the_slot_during_back_off(patch: Patch) -> None:
    edit(
        patch,
        outcomes.back_off,
        {
            "try:": "slots = pool.queue.slots; slots.release(slots.take_slot(record))\n    try:",
            "pool.queue.requeue(record)": "await pool.queue.inlet.send(record)",
        },
    )


def close_the_next_queue_when_the_first_worker_retires(patch: Patch) -> None:
    edit(patch, worker_loop.work, {"if is_last and": "if"})


def retire_the_last_idle_worker(patch: Patch) -> None:
    edit(patch, worker_loop.work, {"if scaling.idle >= 2:": "if worker.processed:"})


def requeue_an_item_twice(patch: Patch) -> None:
    edit(patch, SlotQueue.requeue, {"(item)": "(item); self._stream.send_nowait(item)"})


def exceed_the_window_by_one(patch: Patch) -> None:
    edit(patch, ResultSink.enter, {">= self.window": "> self.window"})


def settle_each_item_twice(patch: Patch) -> None:
    edit(patch, Completion.settle, {"self.settled + 1": "self.settled + 2"})


def never_settle_skipped_items(patch: Patch) -> None:
    right = "await outlet.hand_over"
    wrong = f"status == 'skipped' and outlet is pool.services.final_outlet or {right}"
    edit(patch, outcomes.pass_on, {right: wrong})


def drop_failures_from_ordered_streams(patch: Patch) -> None:
    wrong = "None if self.sink.window else self.sink.put(record.result(failed))"
    edit(patch, StreamOutlet.hand_over_failure, {"self.sink.put(record.result(failed))": wrong})


def send_the_ticket_before_the_record_is_in_the_heap(patch: Patch) -> None:
    edit(
        patch,
        PriorityInlet.send,
        {
            "self._heap.push(record)": "pass",
            "send(Ticket())": "send(Ticket()); self._heap.push(record)",
        },
    )


def never_wake_the_consumer(patch: Patch) -> None:
    edit(patch, ResultSink.put, {"self.wake()": "pass"})


def lose_the_result_of_a_cancelled_consumer(patch: Patch) -> None:
    edit(patch, ResultStream.__anext__, {"self._since_yield += 1": "await checkpoint()"})


def miss_a_wakeup(patch: Patch) -> None:
    patch.setattr("antflow._workers.result_sink.checkpoint", checkpoint, raising=False)
    right = "if self._arrived is None:"
    edit(patch, ResultSink.wait, {right: f"await checkpoint()\n    {right}"})


def drop_the_unsent_items_of_a_stopped_feeder(patch: Patch) -> None:
    right = "return not self._outbox.unsent"
    edit(patch, Feeder.stop, {right: f"self._outbox.unsent.clear(); {right}"})


def keep_the_idle_event_set_during_a_feed(patch: Patch) -> None:
    edit(patch, Completion.expect_feed, {"if self.is_open and": "if False and"})


def treat_cancellations_as_failures(patch: Patch) -> None:
    patch.setattr("antflow._tasks.task_runner.is_item_failure", lambda error: True)
    patch.setattr("antflow._workers.worker_loop.is_item_failure", lambda error: True)


def end_every_run_as_soon_as_it_is_idle(patch: Patch) -> None:
    edit(patch, Completion.check_idle, {"if self.ends_when_idle:": "if True:"})
