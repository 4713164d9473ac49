"""The event bus and the status tracker: delivery, order, event fields, and history."""

from __future__ import annotations

import functools
import logging
import pickle
import types
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import (
    EventBus,
    Item,
    Pipeline,
    Stage,
    StatusEvent,
    StatusTracker,
    Subscription,
    TaskEvent,
)


async def odd_fails(value: int) -> int:
    await checkpoint()
    if value % 2:
        raise ValueError(f"odd: {value}")
    return value


async def same(value: Any) -> Any:
    return value


def one_attempt(*tasks: Any, **arguments: Any) -> Stage:
    return Stage("A", 2, list(tasks), task_attempts=1, **arguments)


def status(item_id: Any = 1, name: Any = "queued") -> StatusEvent:
    return StatusEvent(item_id, "A", name, None, 0.0)


class TestBus:
    async def test_events_are_delivered_in_the_order_of_subscription(self) -> None:
        received: list[str] = []

        def sync(name: str) -> Any:
            return lambda event: received.append(name)

        def slow(name: str) -> Any:
            async def handler(event: Any) -> None:
                await checkpoint()
                received.append(name)

            return handler

        bus = EventBus()
        for handler in (sync("1"), slow("2"), sync("3"), slow("4"), slow("5")):
            bus.subscribe(StatusEvent, handler)
        pending = bus.publish(status())
        assert received == ["1"]
        assert pending is not None
        await pending
        assert received == ["1", "2", "3", "4", "5"]

    async def test_a_generator_is_awaited_if_it_is_a_coroutine(self) -> None:
        """Such coroutines predate `async def`; any other generator is an ordinary value."""
        received: list[str] = []

        @types.coroutine
        def old_style(event: StatusEvent) -> Any:
            yield from checkpoint().__await__()
            received.append("old style")

        def values(event: StatusEvent) -> Any:
            received.append("never started")
            yield

        bus = EventBus()
        for handler in (old_style, values):
            bus.subscribe(StatusEvent, handler)
        pending = bus.publish(status())
        assert pending is not None
        await pending
        assert received == ["old style"]

    def test_publish_returns_none_if_all_handlers_are_sync(self) -> None:
        received: list[Any] = []
        bus = EventBus()
        bus.subscribe(StatusEvent, received.append)
        event = status()
        assert bus.publish(event) is None
        assert received == [event]

    def test_a_handler_receives_its_event_type_until_it_is_unsubscribed(self) -> None:
        received: list[Any] = []
        bus = EventBus()
        of_items = bus.subscribe(StatusEvent, received.append)
        of_tasks = bus.subscribe(TaskEvent, received.append)
        task_event = TaskEvent(1, "A", "task", "A-W0", "start", 1, 0.0)
        bus.publish(task_event)
        bus.unsubscribe(of_tasks)
        bus.publish(task_event)
        assert received == [task_event]
        bus.unsubscribe(of_items)
        bus.unsubscribe(of_items)
        assert (bus.status_subscriptions, bus.task_subscriptions) == ([], [])

    def test_a_handler_that_raises_is_logged_once_under_its_name_and_counted(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Handler:
            def method(self, event: Any) -> None:
                raise ValueError

            def __call__(self, event: Any) -> None:
                raise ValueError

        bus = EventBus()
        for handler in (
            Handler().method,
            functools.partial(Handler().method),
            Handler(),
            lambda event: 1 / 0,
        ):
            bus.subscribe(StatusEvent, handler)
        named = bus.subscribe(StatusEvent, Handler(), name="the named one")
        assert isinstance(named, Subscription)
        for _ in range(3):
            bus.publish(status())
        assert {subscription.errors for subscription in bus.status_subscriptions} == {3}
        assert len(caplog.records) == 5
        for name in ("Handler.method", "Handler raised", "<lambda>", "the named one"):
            assert name in caplog.text
        assert all(record.exc_info and record.levelno == logging.ERROR for record in caplog.records)

    def test_bad_arguments_are_rejected(self) -> None:
        bus = EventBus()
        with pytest.raises(TypeError, match="event_type must be StatusEvent or TaskEvent, got"):
            bus.subscribe(dict, print)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="handler must be a function of one argument, got 5"):
            bus.subscribe(StatusEvent, 5)  # type: ignore[arg-type]
        assert bus.status_subscriptions == []

    async def test_a_pipeline_can_be_subscribed_to_without_a_tracker(self) -> None:
        received: list[Any] = []
        pipeline = Pipeline([one_attempt(same)])
        pipeline.events.subscribe(StatusEvent, lambda event: received.append(event.status))
        await pipeline.run([1])
        assert received == ["queued", "in_progress", "completed"]

    async def test_no_event_is_built_without_a_subscriber(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from antflow._events import publishing
        from antflow._tasks import task_runner

        def fail_test(*args: Any) -> None:
            raise AssertionError("there is no subscriber")

        monkeypatch.setattr(publishing, "MutableStatusEvent", fail_test)
        monkeypatch.setattr(task_runner, "TaskEvent", fail_test)
        stages = [
            one_attempt(odd_fails),
            Stage("B", 1, [same], "per_stage", skip_if=lambda value: value == 2),
            Stage("C", 1, [odd_fails], "per_stage", task_wait_seconds=0),
        ]
        assert (await Pipeline(stages).run(range(5))).values == [0, 2, 4]


class TestEventFields:
    async def test_the_feeder_waits_for_space_also_after_an_async_handler(self) -> None:
        """`queued` is published before there is space in the queue."""
        queued: list[Any] = []
        gate = anyio.Event()

        async def handle(event: StatusEvent) -> None:
            await checkpoint()
            if event.status == "queued":
                queued.append(event.item_id)

        async def wait(value: int) -> int:
            await gate.wait()
            return value

        pipeline = Pipeline([Stage("A", 1, [wait], queue_capacity=1)])
        pipeline.events.subscribe(StatusEvent, handle)
        async with anyio.create_task_group() as group:
            group.start_soon(pipeline.run, range(9))
            await anyio.wait_all_tasks_blocked()
            assert queued == [0, 1, 2]
            gate.set()
        assert queued == list(range(9))
        assert pipeline.results.values == list(range(9))

    async def test_status_events_have_worker_metadata_and_failure(self) -> None:
        tracker = StatusTracker()
        pipeline = Pipeline([one_attempt(odd_fails)], status_tracker=tracker)
        await pipeline.run([Item(1, id="x", metadata={"tenant": "t"})])
        queued, in_progress, failed = tracker.get_history("x")
        assert (queued.worker, queued.worker_id, queued.exception) == (None, None, None)
        assert (in_progress.worker, in_progress.worker_id) == ("A-W0", 0)
        assert queued.metadata == in_progress.metadata == {"tenant": "t"}
        assert failed.metadata == {
            "tenant": "t",
            "error": "odd: 1",
            "error_type": "ValueError",
            "task_name": "odd_fails",
            "attempts": 1,
        }
        assert isinstance(failed.exception, ValueError)
        assert failed.failed_item is pipeline.failures[0]
        assert queued.timestamp <= in_progress.timestamp <= failed.timestamp

    async def test_metadata_of_an_event_is_a_copy(self) -> None:
        def spoil(event: StatusEvent) -> None:
            event.metadata["spoilt"] = True

        pipeline = Pipeline([one_attempt(same)], status_tracker=StatusTracker(spoil))
        (result,) = await pipeline.run([Item(1, metadata={"a": 1})])
        assert result.metadata == {"a": 1}

    def test_events_can_be_pickled_and_compared(self) -> None:
        event = status()
        assert pickle.loads(pickle.dumps(event)) == event
        assert status(name="failed") != event

    def test_a_worker_number_is_read_from_the_end_of_the_name(self) -> None:
        event = StatusEvent(1, "a-W1-W", "in_progress", "a-W1-W-W12", 0.0)
        assert event.worker_id == 12


class TestValueCallbacks:
    async def test_callbacks_of_stages_and_of_the_tracker_are_called_in_order(self) -> None:
        calls: list[tuple[Any, ...]] = []

        def note(name: str) -> Any:
            async def callback(item_id: Any, outcome: Any, payload: dict[str, Any]) -> None:
                await checkpoint()
                calls.append((name, item_id, str(outcome), payload["value"]))
                payload.clear()

            return callback

        async def double(value: int) -> int:
            return 2 * value

        pipeline = Pipeline(
            [
                Stage("A", 1, [double], on_success=note("A+"), on_failure=note("A-")),
                Stage(
                    "B",
                    1,
                    [same],
                    skip_if=lambda value: value == 4,
                    on_success=note("B+"),
                    on_skip=note("B~"),
                ),
                one_attempt_named_c(on_failure=note("C-")),
            ],
            status_tracker=StatusTracker(on_success=note("T+"), on_failure=note("T-")),
        )
        for value in (1, 2, 5):
            await pipeline.run([Item(value, id=f"item {value}")])
        assert calls == [
            ("A+", "item 1", "2", 2),
            ("B+", "item 1", "2", 2),
            ("T+", "item 1", "2", 2),
            ("A+", "item 2", "4", 4),
            ("B~", "item 2", "4", 4),
            ("T+", "item 2", "4", 4),
            ("A+", "item 5", "10", 10),
            ("B+", "item 5", "10", 10),
            ("C-", "item 5", "too much", 10),
            ("T-", "item 5", "too much", 10),
        ]

    async def test_a_skip_in_the_last_stage_is_a_success_for_the_tracker(self) -> None:
        calls: list[Any] = []
        tracker = StatusTracker(on_success=lambda item_id, value, payload: calls.append(value))
        await Pipeline([one_attempt(same, skip_if=bool)], status_tracker=tracker).run([1])
        assert calls == [1]
        assert tracker.get_stats()["skipped"] == 1


def one_attempt_named_c(**arguments: Any) -> Stage:
    async def limit(value: int) -> int:
        if value > 9:
            raise ValueError("too much")
        return value

    return Stage("C", 1, [limit], task_attempts=1, **arguments)


class TestTracker:
    async def test_it_can_be_queried_by_item_and_by_status_and_for_totals(self) -> None:
        tracker = StatusTracker()
        pipeline = Pipeline([one_attempt(odd_fails)], status_tracker=tracker)
        await pipeline.run(range(5))
        assert tracker.get_stats() == {
            "queued": 0,
            "in_progress": 0,
            "completed": 3,
            "failed": 2,
            "retrying": 0,
            "skipped": 0,
        }
        latest = tracker.get_status(item_id=3)
        assert latest is not None
        assert (latest.status, latest.stage) == ("failed", "A")
        assert tracker.get_status("unknown") is None
        assert {event.item_id for event in tracker.get_by_status("failed")} == {1, 3}
        assert [event.status for event in tracker.get_history(item_id=0)] == [
            "queued",
            "in_progress",
            "completed",
        ]
        assert tracker.get_history("unknown") == []
        assert tracker.get_tracked_ids() == [0, 1, 2, 3, 4]
        assert {item.item_id for item in tracker.get_failed_items()} == {1, 3}
        summary = tracker.get_error_summary()
        assert (summary.total_failed, summary.errors_by_stage) == (2, {"A": 2})
        with pytest.raises(ValueError, match=r"status must be one of 'queued', .*, got 'done'"):
            tracker.get_by_status("done")  # type: ignore[arg-type]

    async def test_it_can_be_queried_during_the_run(self) -> None:
        opened = anyio.Event()

        async def hold(value: int) -> int:
            await opened.wait()
            return value

        tracker = StatusTracker()
        pipeline = Pipeline([Stage("A", 2, [hold])], status_tracker=tracker)
        async with anyio.create_task_group() as group:
            group.start_soon(pipeline.run, range(5))
            await anyio.wait_all_tasks_blocked()
            stats = tracker.get_stats()
            assert (stats["queued"], stats["in_progress"]) == (3, 2)
            opened.set()
        assert tracker.get_stats()["completed"] == 5

    @pytest.mark.parametrize(
        ("history", "kept"),
        [
            (True, ["queued", "in_progress", "completed"]),
            (2, ["in_progress", "completed"]),
            (1, ["completed"]),
            (False, ["completed"]),
        ],
    )
    async def test_history_limits_how_many_events_are_kept(self, history: Any, kept: Any) -> None:
        tracker = StatusTracker(history=history)
        await Pipeline([one_attempt(same)], status_tracker=tracker).run([1])
        assert [event.status for event in tracker.get_history(0)] == kept
        assert tracker.get_history("unknown") == []

    async def test_it_keeps_the_events_of_all_runs_until_it_is_cleared(self) -> None:
        tracker = StatusTracker()
        pipeline = Pipeline([one_attempt(same)], status_tracker=tracker)
        await pipeline.run([1, 2])
        await pipeline.run([1])
        assert tracker.get_stats()["completed"] == 2
        assert len(tracker.get_history(0)) == 6
        tracker.clear()
        assert sum(tracker.get_stats().values()) == 0
        assert tracker.get_tracked_ids() == []

    async def test_ids_that_cannot_be_hashed_are_distinguished(self) -> None:
        tracker = StatusTracker()
        pipeline = Pipeline([one_attempt(same)], status_tracker=tracker)
        await pipeline.run([Item(1, id=["a"]), Item(2, id=["b"])])
        assert tracker.get_tracked_ids() == [["a"], ["b"]]
        assert len(tracker.get_history(["a"])) == 3

    async def test_only_the_task_callbacks_that_were_given_are_called(self) -> None:
        failed: list[TaskEvent] = []
        tracker = StatusTracker(on_task_fail=failed.append)
        await Pipeline([one_attempt(odd_fails)], status_tracker=tracker).run(range(4))
        assert sorted(event.item_id for event in failed) == [1, 3]
        assert {event.event_type for event in failed} == {"fail"}

    async def test_async_task_callbacks_are_awaited_before_the_worker_continues(self) -> None:
        order: list[str] = []

        async def slowly(event: TaskEvent) -> None:
            await checkpoint()
            await checkpoint()
            order.append(event.event_type)

        async def task(value: int) -> int:
            order.append("task")
            return value

        tracker = StatusTracker(on_task_start=slowly, on_task_complete=slowly)
        await Pipeline([one_attempt(task)], status_tracker=tracker).run([1])
        assert order == ["start", "task", "complete"]
        assert tracker.callback_errors == 0

    async def test_errors_of_task_callbacks_are_counted(self) -> None:
        def broken(event: TaskEvent) -> None:
            raise ValueError

        tracker = StatusTracker(on_task_start=broken)
        with _log_disabled():
            await Pipeline([one_attempt(same)], status_tracker=tracker).run(range(3))
        assert tracker.callback_errors == 3


@contextmanager
def _log_disabled() -> Any:
    logging.getLogger("antflow").disabled = True
    try:
        yield
    finally:
        logging.getLogger("antflow").disabled = False
