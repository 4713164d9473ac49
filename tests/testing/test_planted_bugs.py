"""
Bugs that are put into the engine are found by the check of the promises, on each backend.

Which item shows it first is up to the backend: trio changes the order of its tasks at random.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from antflow import Pipeline, Stage
from antflow._entrance import Places
from antflow._flow import _publish
from antflow._line import Line
from antflow._pool import Pool
from antflow._state import RunState
from antflow.testing import EventLog, assert_promises, failing, flaky, slow

Patch = pytest.MonkeyPatch


def forget_failures(patch: Patch) -> None:
    patch.setattr(RunState, "fail", lambda self, failed: None)


def deliver_some_results_twice(patch: Patch) -> None:
    deliver = RunState.deliver

    def twice(self: RunState, record: Any) -> None:
        deliver(self, record)
        if record.sequence_id:
            self._slots[record.sequence_id - 1] = record.result()

    patch.setattr(RunState, "deliver", twice)


def keep_results_in_order_of_arrival(patch: Patch) -> None:
    def arrive(self: RunState, record: Any) -> None:
        self._slots.append(record.result())

    patch.setattr(RunState, "deliver", arrive)


def publish_after_sending(patch: Patch) -> None:
    async def send_and_announce(record: Any, pool: Pool) -> None:
        await pool.entrance.send(record)
        await _publish("queued", record, pool, None)

    patch.setattr("antflow._flow._announce_and_send", send_and_announce)


def let_the_last_go_first(patch: Patch) -> None:
    def join(self: Line, record: Any) -> None:
        arrival = next(self._arrivals)
        heapq.heappush(self._heap, (record.priority - arrival, arrival, record))

    patch.setattr(Line, "join", join)


def start_a_worker_too_many(patch: Patch) -> None:
    grow = Pool.grow

    def grow_too_far(self: Pool) -> None:
        if self.running == self.stage.workers and not self._free:
            self.running += 1
            self.start_worker(self, self.stage_state.add_worker())
        else:
            grow(self)

    patch.setattr(Pool, "grow", grow_too_far)


def forget_the_bounds(patch: Patch) -> None:
    def unbounded(capacity: float) -> Any:
        return anyio.create_memory_object_stream[Any](math.inf)

    class Streams:
        def __class_getitem__(cls, kind: Any) -> Any:
            return unbounded

    patch.setattr("antflow._entrance.create_memory_object_stream", Streams)


def give_one_more_place_for_each_retry(patch: Patch) -> None:
    take_back = Places.take_back

    def add_and_take_back(self: Places, item: Any) -> None:
        self._limiter.total_tokens += 1
        take_back(self, item)

    patch.setattr(Places, "take_back", add_and_take_back)


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (forget_failures, "P1 .*failed, and it did not come out"),
        (deliver_some_results_twice, "P1 .*it came out 2 times"),
        (keep_results_in_order_of_arrival, "P2 .*came out after number"),
        (publish_after_sending, "P3 .*: in_progress' came .*It should have been '[AB]: queued'"),
        (let_the_last_go_first, "P4 .*it started before item"),
        (start_a_worker_too_many, "P5 .*There should be at most"),
        (forget_the_bounds, "P5 .*items are at the stage"),
        (give_one_more_place_for_each_retry, "P5 .*items are at the stage"),
    ],
)
async def test_planted_bugs_are_found(
    plant: Callable[[Patch], None], words: str, monkeypatch: Patch
) -> None:
    async def run() -> None:
        delays = slow(lambda value: value % 3)
        fails = failing(when=lambda value: value % 7 == 0)
        pipeline = Pipeline(
            [
                Stage("A", 3, [delays, fails], task_attempts=1, queue_capacity=1),
                Stage("B", 2, [delays, flaky()], "per_stage", queue_capacity=1),
                Stage("C", 1, [slow(2)], queue_capacity=5),
            ]
        )
        log = EventLog(pipeline)
        await pipeline.feed(log.source(range(40), priority=1), priority=1)
        assert_promises(log, pipeline.results)

    await run()
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=words):
        await run()
