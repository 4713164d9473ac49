"""The columns of a tracker: they answer as lists of events would."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
import weakref
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import EventBus, Pipeline, Stage, StatusEvent, StatusTracker, WorkerState
from antflow._events.tracked_items import TrackedItems
from antflow._model.events import Status

STATUSES: tuple[Status, ...] = get_args(Status)


class Raises:
    """An id that raises when it is hashed or compared, as long as `active`."""

    active = True

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        if self.active:
            raise RuntimeError("not comparable")
        return self is other


ids = st.sampled_from([0, 1, 2, 10**20, "a", None, (1, 2), [1], {"b": 1}])
changes = st.tuples(ids, st.sampled_from(STATUSES), st.sampled_from("AB"), st.integers(0, 3))
steps = st.lists(st.one_of(changes, ids, st.just("clear")), max_size=60)


def event_of(step: Any, number: int) -> StatusEvent:
    item_id, status, stage, worker = step
    metadata = {"n": number} if number % 3 == 0 else {}
    name = None if worker == 0 else f"{stage}-W{worker}"
    return StatusEvent(item_id, stage, status, name, float(number), metadata)


class Model:
    """What a tracker answers, with a list of events for each item."""

    def __init__(self, length: int | None) -> None:
        self.length = length
        self.items: dict[str, list[StatusEvent]] = {}

    def keep(self, event: StatusEvent) -> None:
        events = self.items.setdefault(repr(event.item_id), [])
        events.append(event)
        if self.length is not None:
            del events[: -self.length]


@given(history=st.sampled_from([True, False, 1, 2, 3]), steps=steps)
def test_columns_answer_as_lists_of_events(history: Any, steps: list[Any]) -> None:
    tracker = StatusTracker(history=history)
    bus = EventBus()
    tracker.connect(bus)
    model = Model(None if history is True else int(history) or 1)
    for number, step in enumerate(steps):
        if step == "clear":
            tracker.clear()
            model.items.clear()
        elif type(step) is tuple and len(step) == 4:
            bus.publish(event_of(step, number))
            model.keep(event_of(step, number))
        else:
            assert tracker.forget(step) == (model.items.pop(repr(step), None) is not None)
    latest = [events[-1] for events in model.items.values()]
    assert tracker.get_tracked_ids() == [event.item_id for event in latest]
    for events in model.items.values():
        assert tracker.get_history(events[0].item_id) == events
        assert tracker.get_status(events[0].item_id) == events[-1]
    for status in STATUSES:
        expected = [event for event in latest if event.status == status]
        assert tracker.get_by_status(status) == expected
        assert tracker.get_stats()[status] == len(expected)
    assert tracker.callback_errors == 0


async def test_two_trackers_on_one_bus_keep_the_same() -> None:
    first, second = StatusTracker(), StatusTracker(history=2, keep_done=1)

    async def fail(value: int) -> None:
        raise ValueError

    pipeline = Pipeline([Stage("A", 1, [fail], task_attempts=1)], status_tracker=first)
    second.connect(pipeline.events)
    await pipeline.run([{"id": "x", "value": 1, "tenant": "t"}, 2])
    assert second.get_tracked_ids() == [1]
    assert second.get_history(1) == first.get_history(1)[-2:]
    assert second.get_failed_items() == pipeline.failures[1:]
    assert first.get_history("x")[0].metadata == {"tenant": "t"}


async def test_a_handler_may_unsubscribe_itself_between_two_events() -> None:
    async def same(value: int) -> int:
        return value

    def once(event: StatusEvent) -> None:
        heard.append(event.status)
        if event.status == "completed":
            pipeline.events.unsubscribe(subscription)

    heard: list[str] = []
    pipeline = Pipeline([Stage("A", 1, [same]), Stage("B", 1, [same])])
    subscription = pipeline.events.subscribe(StatusEvent, once)
    assert (await pipeline.run([1])).values == [1]
    assert heard == ["queued", "in_progress", "completed"]


def test_an_id_that_raises_counts_as_an_error_and_can_be_kept() -> None:
    for keep_done in (None, 0):
        tracker = StatusTracker(keep_done=keep_done)
        bus = EventBus()
        tracker.connect(bus)
        bad, worse = Raises(), Raises()
        for item_id in (bad, worse):
            bus.publish(StatusEvent(item_id, "A", "queued", None, 0.0))
        assert tracker.callback_errors == 1
        bus.publish(StatusEvent(bad, "A", "completed", None, 0.0))
        worse.active = bad.active = False
        assert [type(item_id) for item_id in tracker.get_tracked_ids()] in ([Raises], [])


def test_an_item_whose_id_is_not_found_any_more_is_not_forgotten() -> None:
    for broken in (False, True):
        items = TrackedItems(None, print)
        tracker = StatusTracker()
        tracker._items = items
        bad = Raises()
        bad.active = False
        tracker._update(StatusEvent(bad, "A", "queued", None, 0.0))
        if broken:
            bad.active = True
            items._ids[0] = Raises()
        else:
            items._ids[0] = "another id"
        assert not items.forget(0)


def test_an_answer_that_changes_while_it_is_read_is_read_again() -> None:
    tracker = StatusTracker()
    tracker._update(StatusEvent(1, "A", "queued", None, 0.0))
    items = tracker._items
    asked: list[int] = []

    def find() -> int:
        asked.append(0)
        if len(asked) < 3:
            items._forgotten += 1
        return 0

    assert [event.status for event in items._read(find)] == ["queued"]
    assert len(asked) == 3
    # It is not read for ever.

    def find_always() -> int:
        items._forgotten += 1
        return 0

    assert [event.status for event in items._read(find_always)] == ["queued"]
    # Another thread has forgotten all of them.
    assert items._read(lambda: 5) == []
    tracker.forget(1)
    assert items._read(lambda: 0) == []
    assert items.newest(0) is None
    assert items.newest(9) is None
    assert items.failure(9) is None


def test_the_newest_event_is_read_again_if_something_was_forgotten_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = TrackedItems(None, print)
    tracker = StatusTracker()
    tracker._items = items
    tracker._update(StatusEvent(1, "A", "queued", None, 0.0))
    make = items._event
    made: list[int] = []

    def make_slowly(*arguments: Any) -> StatusEvent:
        made.append(0)
        if len(made) == 1:
            items._forgotten += 1
        if len(made) == 4:
            raise IndexError
        return make(*arguments)

    monkeypatch.setattr(items, "_event", make_slowly)
    assert items.newest(0) == StatusEvent(1, "A", "queued", None, 0.0)
    assert len(made) == 2
    items._forgotten += 1
    assert items.history(1) == [StatusEvent(1, "A", "queued", None, 0.0)]
    # Another thread has cleared the tracker.
    assert items.history(1) == []


def test_the_errors_of_stages_are_counted_and_their_callbacks_not_kept() -> None:
    class Callback:
        def __call__(self, *args: Any) -> None: ...

    callback = Callback()
    reference = weakref.ref(callback)
    tracker = StatusTracker()
    pipeline = Pipeline([Stage("A", 1, [print], on_success=callback)], status_tracker=tracker)
    del callback, pipeline
    gc.collect()
    assert reference() is None


class TestThreadsThatLook:
    """Any thread may ask: nothing raises, and no figure is negative."""

    @pytest.mark.parametrize("history", [True, 2, False])
    async def test_from_another_thread_nothing_raises_or_is_negative(self, history: Any) -> None:
        tracker = StatusTracker(history=history, keep_done=500)

        async def odd_fails(value: int) -> int:
            if value % 5 == 0:
                raise ValueError
            return value

        async def same(value: int) -> int:
            return value

        stages = [
            Stage("A", 4, [odd_fails], task_attempts=1),
            Stage("B", 4, [same], skip_if=lambda value: value % 3 == 0),
        ]
        pipeline = Pipeline(stages, status_tracker=tracker)
        ended = threading.Event()
        errors: list[BaseException] = []
        looked: list[int] = []

        def look() -> None:
            try:
                while not ended.is_set():
                    for status in STATUSES:
                        tracker.get_by_status(status)
                    tracker.get_history(1)
                    tracker.get_tracked_ids()
                    tracker.get_error_summary()
                    tracker.get_status(1000)
                    assert min(tracker.get_stats().values()) >= 0
                    snapshot = pipeline.get_dashboard_snapshot()
                    stats = snapshot.pipeline_stats
                    figures = [stats.items_in_flight, *stats.queue_sizes.values()]
                    for stage in stats.stage_stats.values():
                        figures += [
                            stage.pending_items,
                            stage.in_progress_items,
                            stage.completed_items,
                            stage.skipped_items,
                        ]
                    for metrics in snapshot.worker_metrics.values():
                        figures.append(int(metrics.total_processing_time))
                    assert min(figures) >= 0, stats
                    looked.append(1)
            except BaseException as error:
                errors.append(error)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        thread = threading.Thread(target=look)
        thread.start()
        try:
            for _ in range(3):
                await pipeline.run(range(1500))
        finally:
            ended.set()
            thread.join()
            sys.setswitchinterval(interval)
        assert errors == []
        assert looked


class TestWorkerMapping:
    def test_it_equals_a_dict_and_knows_its_workers_only(self) -> None:
        async def same(value: int) -> int:
            return value

        states = Pipeline([Stage("A", 2, [same]), Stage("A-W1", 11, [same])]).get_worker_states()
        names = ["A-W0", "A-W1", *(f"A-W1-W{number}" for number in range(11))]
        assert list(states) == names
        assert len(states) == 13
        stage_of = {name: name.rpartition("-W")[0] for name in names}
        assert states == {name: WorkerState(name, stage) for name, stage in stage_of.items()}
        assert "A-W1-W10" in states
        for name in (
            "A-W2",
            "A-W",
            "A",
            "B-W0",
            "A-W-1",
            "A-W01",
            "A-W1-W01",
            "A-W²",
            "A-W" + "0" * 9999,
            5,
        ):
            assert name not in states
        with pytest.raises(KeyError, match="A-W2"):
            states["A-W2"]
        assert repr(states) == "<WorkerMapping: 13 workers, 0 started>"
        assert states.started == {}

    async def test_workers_that_never_started_take_no_memory(self) -> None:
        async def same(value: int) -> int:
            return value

        pipeline = Pipeline([Stage("A", 1_000_000, [same])])
        await pipeline.run([1])
        snapshot = pipeline.get_dashboard_snapshot()
        assert len(snapshot.worker_states) == 1_000_000
        assert 1 <= len(snapshot.worker_states.started) <= 3
        assert snapshot.worker_states["A-W999999"].status == "idle"
        assert snapshot.worker_metrics["A-W999999"].items_processed == 0
        pickled = pickle.dumps(snapshot.worker_metrics)
        assert len(pickled) < 2000
        assert pickle.loads(pickled).started == snapshot.worker_metrics.started
