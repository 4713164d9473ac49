"""Pipelines: inputs, results, failures, several runs, and statistics."""

from __future__ import annotations

import copy
import pickle
import sys
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import (
    DashboardSnapshot,
    FailedItem,
    Item,
    Pipeline,
    PipelineError,
    PipelineResult,
    Results,
    RetryPolicy,
    Stage,
    StageStats,
    StatusEvent,
    StatusTracker,
    TaskFailedError,
    TooManyFailuresError,
    WorkerMetrics,
    WorkerState,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


async def same(value: Any) -> Any:
    await checkpoint()
    return value


class Awaitable:
    def __await__(self) -> Iterator[None]:
        yield


async def odd_fails(value: int) -> int:
    await checkpoint()
    if value % 2:
        raise ValueError(f"odd: {value}")
    return value


def pipeline(**arguments: Any) -> Pipeline:
    return Pipeline([Stage("A", 3, [odd_fails], task_attempts=1)], **arguments)


class AnyCase(dict[str, Any]):
    """A dict with upper-case keys whose look-ups ignore the case."""

    def __contains__(self, key: object) -> bool:
        return super().__contains__(str(key).upper())

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key.upper())


class TestInput:
    async def test_iterables_and_async_iterables_are_accepted(self) -> None:
        class Countdown:
            """An async iterable that is not a generator, but can be closed."""

            def __init__(self) -> None:
                self.left = 3
                self.closed = False

            def __aiter__(self) -> Countdown:
                return self

            async def __anext__(self) -> int:
                self.left -= 1
                if self.left < 0:
                    raise StopAsyncIteration
                return self.left

            async def aclose(self) -> None:
                self.closed = True

        async def generator() -> AsyncIterator[int]:
            for value in range(3):
                yield value

        a = Pipeline([Stage("A", 2, [same])])
        for source in ([1, 2], (1, 2), {1: 1, 2: 2}, iter([1, 2]), map(int, "12"), deque([1, 2])):
            assert (await a.run(source)).values == [1, 2]
        assert (await a.run([])) == []
        assert (await a.run(generator())).values == [0, 1, 2]
        countdown = Countdown()
        assert (await a.run(countdown)).values == [2, 1, 0]
        assert countdown.closed

    @pytest.mark.parametrize(
        ("items", "words"),
        [
            (5, "got 5 (int)."),
            (None, "got None (NoneType)."),
            (same, "It is a function: call it, and pass what it returns."),
        ],
    )
    async def test_other_objects_are_rejected(self, items: Any, words: str) -> None:
        with pytest.raises(PipelineError, match="must be an iterable or async iterable") as caught:
            await pipeline().run(items)
        assert words in str(caught.value)

    async def test_an_awaitable_is_rejected_with_a_hint(self) -> None:
        """A coroutine is closed, so that Python does not warn that it was never awaited."""
        with pytest.raises(PipelineError, match="await it first"):
            await pipeline().run(same([1]))  # type: ignore[arg-type]
        future = Awaitable()
        with pytest.raises(PipelineError, match="await it first"):
            await pipeline().run(future)  # type: ignore[arg-type]

    @pytest.mark.parametrize("item", ["abc", b"abc", {"id": 1, "value": 2}, Item(1)])
    async def test_a_single_item_is_rejected_with_a_hint(self, item: Any) -> None:
        with pytest.raises(PipelineError, match="like a single item: put it in a list"):
            await pipeline().run(item)

    async def test_a_generator_is_closed_when_the_run_ends_early(self) -> None:
        closed = []

        def source() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                closed.append("sync")

        with pytest.raises(TooManyFailuresError):
            await pipeline().run(source(), max_failures=0)
        assert closed == ["sync"]

    @pytest.mark.parametrize("kind", ["sync", "async"])
    async def test_an_error_in_closing_a_generator_is_a_source_error(self, kind: str) -> None:
        """The run raises it, and does not hang."""

        def source() -> Iterator[int]:
            try:
                yield 1
                raise ValueError("first")
            finally:
                raise OSError("on closing")

        async def async_source() -> AsyncIterator[int]:
            for value in source():
                yield value

        with pytest.raises(OSError, match="on closing"):
            await Pipeline([Stage("A", 1, [same])]).run(
                source() if kind == "sync" else async_source()
            )

    async def test_a_generator_that_two_runs_share_is_a_source_error(self) -> None:
        async def source() -> AsyncIterator[int]:
            for value in range(10):
                await checkpoint()
                yield value

        shared = source()
        a = Pipeline([Stage("A", 2, [same])])
        errors: list[str] = []

        async def run() -> None:
            try:
                await a.run(shared)
            except RuntimeError as error:
                errors.append(str(error))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            group.start_soon(run)
        assert errors
        assert all("already running" in error for error in errors)

    async def test_the_id_of_a_dict_is_read_with_its_own_methods(self) -> None:
        row = AnyCase(ID=7, NAME="x")
        (result,) = await Pipeline([Stage("A", 1, [same])]).run([row])
        assert result.id == 7
        assert result.value is row

    async def test_a_source_error_keeps_no_task_result_alive(self) -> None:
        class Made:
            """A class whose instances support weak references."""

        made: list[weakref.ref[Made]] = []

        async def make(value: int) -> Made:
            result = Made()
            made.append(weakref.ref(result))
            return result

        def source() -> Iterator[int]:
            yield from (1, 2)
            raise ValueError("the source is broken")

        with pytest.raises(ValueError, match="broken") as caught:
            await Pipeline([Stage("A", 1, [make])], collect_results=False).run(source())
        assert [ref() for ref in made] == [None, None]
        assert caught.value.__traceback__ is not None

    async def test_the_metadata_of_a_result_is_a_copy(self) -> None:
        metadata = {"a": 1}
        (result,) = await Pipeline([Stage("A", 1, [same])]).run([Item(1, metadata=metadata)])
        result.metadata["a"] = 2
        assert metadata == {"a": 1}

    @pytest.mark.parametrize("tracker", [None, StatusTracker(history=False)])
    async def test_an_endless_source_that_never_waits_lets_other_loop_tasks_run(
        self, tracker: Any
    ) -> None:
        """The feeder yields although the queue is never full, with a subscriber and without."""
        seen = 0

        def source() -> Iterator[int]:
            nonlocal seen
            while True:
                seen += 1
                yield seen

        a = Pipeline([Stage("A", 1, [same], queue_capacity=float("inf"))], status_tracker=tracker)
        async with anyio.create_task_group() as group:
            group.start_soon(a.run, source())
            for _ in range(10):
                await checkpoint()
            group.cancel_scope.cancel()
        assert 0 < seen < 100_000


def pipeline_of_same() -> Pipeline:
    async def same(value: Any) -> Any:
        return value

    return Pipeline([Stage("A", 1, [same])])


class TestResults:
    async def test_failures_are_an_attribute_of_the_results(self) -> None:
        results = await pipeline().run([2, Item(3, id="three", metadata={"x": 1}), 4])
        assert isinstance(results, list)
        assert results.values == [2, 4]
        assert results[0] == PipelineResult(0, 2, 0, {})
        assert results[0].is_success
        (failure,) = results.failures
        assert failure.item_id == "three"
        assert (failure.stage, failure.task_name, failure.attempts) == ("A", "odd_fails", 1)
        assert (failure.error, failure.error_type) == ("odd: 3", "ValueError")
        assert (failure.value, failure.metadata, failure.sequence_id) == (3, {"x": 1}, 1)
        assert isinstance(failure.exception, ValueError)
        # The traceback ends in the task.
        traceback = failure.exception.__traceback__
        names = []
        while traceback is not None:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        assert names[-1] == "odd_fails"

    async def test_a_failed_item_can_be_fed_again(self) -> None:
        broken = True

        async def repairable(value: int) -> int:
            if broken:
                raise ValueError
            return value

        async def add(value: int) -> int:
            return value + 10

        a = Pipeline([Stage("A", 2, [add]), Stage("B", 2, [repairable], task_attempts=1)])
        first = await a.run([1, 2])
        assert [(item.value, item.stage_value) for item in first.failures] == [(1, 11), (2, 12)]
        broken = False
        again = await a.run(Item(item.value, id=item.item_id) for item in first.failures)
        assert again.values == [11, 12]

    async def test_raise_for_failures_names_item_stage_and_task(self) -> None:
        results = await pipeline().run([1, 2, 3])
        with pytest.raises(ExceptionGroup, match="2 items failed") as caught:
            results.raise_for_failures()
        first = caught.value.exceptions[0]
        assert isinstance(first, TaskFailedError)
        assert str(first) == (
            "item 0 failed in stage 'A', task 'odd_fails', after 1 attempt: ValueError: odd: 1"
        )
        assert (first.item_id, first.stage, first.task_name, first.attempts) == (
            0,
            "A",
            "odd_fails",
            1,
        )
        assert first.__cause__ is results.failures[0].exception
        (await pipeline().run([2])).raise_for_failures()

    async def test_results_and_failures_can_be_pickled_and_copied(self) -> None:
        results = await pipeline().run([1, 2])
        again = pickle.loads(pickle.dumps(results))
        assert again == results
        assert [item.item_id for item in again.failures] == [0]
        assert pickle.loads(pickle.dumps(results[0])) == results[0]
        assert copy.deepcopy(results).failures[0].error == "odd: 1"
        error = results.failures[0].as_exception()
        assert pickle.loads(pickle.dumps(error)).item_id == 0

    async def test_an_exception_whose_str_raises_is_reported(self) -> None:
        class BrokenError(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        async def fail(value: Any) -> Any:
            raise BrokenError if value else ValueError

        results = await Pipeline([Stage("A", 1, [fail], task_attempts=1)]).run([1, 0])
        assert results.failures[0].error == "<BrokenError whose text cannot be read>"
        assert results.failures[1].error == "ValueError"

    async def test_an_id_whose_repr_raises_is_reported(self) -> None:
        class Id:
            def __repr__(self) -> str:
                raise RuntimeError

        with pytest.raises(
            TooManyFailuresError, match=r"item <Id whose repr\(\) raises> failed in"
        ):
            await pipeline().run([Item(1, id=Id())], max_failures=0)

    async def test_the_repr_counts_failures(self) -> None:
        """A run in which all items failed does not look like a run without items."""
        assert repr(await pipeline().run([1, 3])) == "<Results: 0 succeeded, 2 failed: []>"
        assert repr(await pipeline().run([])) == "<Results: 0 succeeded: []>"

    async def test_results_are_not_kept_with_collect_results_false(self) -> None:
        a = pipeline(collect_results=False)
        results = await a.run(range(10))
        assert results == []
        assert len(results.failures) == 5
        assert a.get_stats().items_processed == 5

    async def test_results_can_be_read_during_a_run(self) -> None:
        """They are in input order, without items that failed or are not finished."""
        gate = anyio.Event()

        async def hold(value: Any) -> Any:
            if value == "held":
                await gate.wait()
            if value == "bad":
                raise ValueError(value)
            return value

        own = Item("own", id="x", metadata={"a": 1})
        inner = PipelineResult(9, "inner", 9)
        async with Pipeline([Stage("A", 2, [hold], task_attempts=1)]) as running:
            await running.feed(
                ["held", own, "bad", Item(inner), {"id": 4, "value": "same number"}, None]
            )
            await anyio.wait_all_tasks_blocked()
            first, second = running.results, running.results
            assert [(result.sequence_id, result.id, result.value) for result in first] == [
                (1, "x", "own"),
                (3, 3, inner),
                (4, 4, "same number"),
                (5, 5, None),
            ]
            assert all(one is other for one, other in zip(first, second))
            first[0].metadata["seen"] = first[1].metadata["seen"] = True
            gate.set()
            await running.join()
        assert [result.sequence_id for result in running.results] == [0, 1, 3, 4, 5]
        assert [result.metadata for result in running.results] == [
            {},
            {"a": 1, "seen": True},
            {"seen": True},
            {},
            {},
        ]
        assert own.metadata == {"a": 1}

    async def test_a_nested_read_gets_the_same_results(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A signal handler, or another thread, may read the results while they are made."""
        from antflow._state import result_store

        a = pipeline()
        inner: list[Results] = []
        make = result_store.new_result

        def read_and_make(*args: Any) -> PipelineResult:
            if args[0] == 1 and not inner:
                inner.append(Results())
                inner[0] = a.results
            return make(*args)

        await a.run([])
        monkeypatch.setattr(result_store, "new_result", read_and_make)
        results = await a.run([0, 2, 4])
        assert results.values == inner[0].values == a.results.values == [0, 2, 4]
        for one, other, later in zip(results, inner[0], a.results):
            assert one is other is later

    async def test_a_dict_that_cannot_be_unwrapped_is_a_source_error(self) -> None:
        """It is not counted as admitted, so `join()` does not wait for it."""

        class IgnoresCase(dict[str, Any]):
            def __contains__(self, key: object) -> bool:
                return any(name.lower() == key for name in self)

        async with pipeline() as a:
            with pytest.raises(KeyError, match="id"):
                await a.feed([2, IgnoresCase(ID=7, VALUE=8), 4])
            await a.join()
            assert a.results.values == [2]
            assert a.get_stats().items_in_flight == 0

    async def test_an_object_that_claims_to_be_a_dict_is_a_value(self) -> None:
        class Proxy:
            __class__ = property(lambda self: dict)  # type: ignore[assignment]

        proxy = Proxy()
        (result,) = await pipeline_of_same().run([proxy])
        assert (result.id, result.value) == (0, proxy)


class TestMaxFailures:
    async def test_that_many_failures_are_tolerated(self) -> None:
        results = await pipeline().run(range(20), max_failures=10)
        assert (len(results), len(results.failures)) == (10, 10)

    async def test_one_more_failure_stops_the_run(self) -> None:
        read = 0

        def source() -> Iterator[int]:
            nonlocal read
            while True:
                read += 1
                yield read

        a = pipeline()
        with pytest.raises(TooManyFailuresError, match="and max_failures is 2; the last: item") as (
            caught
        ):
            await a.run(source(), max_failures=2)
        error = caught.value
        assert error.max_failures == 2
        assert error.results is not None
        assert len(error.results.failures) >= 3
        assert isinstance(error.__cause__, TaskFailedError)
        assert pickle.loads(pickle.dumps(error)).results == error.results
        assert a.results == error.results

    async def test_zero_stops_at_the_first_failure(self) -> None:
        calls = 0

        async def fail(value: int) -> None:
            nonlocal calls
            calls += 1
            raise ValueError

        async def on_failure(item_id: Any, error: Exception, payload: Any) -> None:
            for _ in range(10):
                await checkpoint()

        stage = Stage("A", 1, [fail], task_attempts=1, on_failure=on_failure)
        with pytest.raises(TooManyFailuresError, match=r"^1 item failed and max_failures is 0"):
            await Pipeline([stage]).run(range(1000), max_failures=0)
        assert calls == 1

    async def test_results_and_statistics_of_a_stopped_run_agree(self) -> None:
        """Finished items count in both, although their callbacks have not returned."""

        async def fail_last(value: int) -> int:
            if value == 7:
                await anyio.wait_all_tasks_blocked()
                raise ValueError
            return value

        async def on_success(item_id: Any, value: Any, payload: Any) -> None:
            await anyio.sleep_forever()

        a = Pipeline([Stage("A", 8, [fail_last], task_attempts=1, on_success=on_success)])
        with pytest.raises(TooManyFailuresError) as caught:
            await a.run(range(8), max_failures=0)
        assert caught.value.results is not None
        assert len(caught.value.results) == a.get_stats().items_processed == 7

    async def test_it_takes_precedence_over_an_error_in_closing_the_source(self) -> None:
        def source() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                raise OSError

        with pytest.raises(TooManyFailuresError):
            await pipeline().run(source(), max_failures=0)

    @pytest.mark.parametrize("bad", [-1, True, "1", 1.5])
    async def test_a_bad_value_is_rejected(self, bad: Any) -> None:
        with pytest.raises(PipelineError, match="max_failures must be a whole number"):
            await pipeline().run([1], max_failures=bad)

    async def test_it_stops_a_stage_with_per_stage_retry(self) -> None:
        async def fail(value: Any) -> None:
            raise ValueError

        policy = RetryPolicy(scope="stage", attempts=2, wait_initial=0, wait_jitter=0)
        with pytest.raises(TooManyFailuresError):
            await Pipeline([Stage("A", 2, [fail], policy)]).run(range(100), max_failures=5)


class TestRuns:
    async def test_a_second_run_starts_with_empty_results_and_statistics(self) -> None:
        a = pipeline()
        await a.run(range(10))
        assert (a.get_stats().items_processed, len(a.failures)) == (5, 5)
        results = await a.run([2, 4, 6])
        assert [result.sequence_id for result in results] == [0, 1, 2]
        assert (a.get_stats().items_processed, a.failures, results.failures) == (3, [], [])

    async def test_overlapping_runs_are_independent(self) -> None:
        opened = anyio.Event()

        async def task(value: tuple[str, int]) -> tuple[str, int]:
            if value[0] == "held":
                await opened.wait()
            return value

        a = Pipeline([Stage("A", 2, [task]), Stage("B", 2, [same])])
        outcome: dict[str, Results] = {}

        async def run(name: str) -> None:
            outcome[name] = await a.run([(name, number) for number in range(50)])

        async with anyio.create_task_group() as group:
            group.start_soon(run, "held")
            await anyio.wait_all_tasks_blocked()
            await run("free")
            assert list(outcome) == ["free"]
            opened.set()
        for name, results in outcome.items():
            assert results.values == [(name, number) for number in range(50)]

    async def test_runs_can_be_nested_in_a_task_of_the_same_pipeline(self) -> None:
        async def recurse(value: int) -> int:
            if value == 0:
                return 0
            return 1 + (await a.run([value - 1])).values[0]

        a = Pipeline([Stage("A", 1, [recurse])])
        assert (await a.run([5])).values == [5]

    async def test_loop_tasks_are_named_like_their_workers(self) -> None:
        names = []

        async def note(value: int) -> int:
            names.append(anyio.get_current_task().name)
            return value

        running = Pipeline([Stage("A", 1, [note]), Stage("B", 1, [note])])
        await running.run([1])
        assert [[name] for name in names] == list(running.get_worker_names().values())


class TestStatistics:
    def test_before_the_first_run_all_workers_are_idle(self) -> None:
        a = Pipeline([Stage("A", 2, [same]), Stage("B", 1, [same])])
        assert a.results == []
        assert a.failures == []
        assert a.get_worker_names() == {"A": ["A-W0", "A-W1"], "B": ["B-W0"]}
        assert a.get_worker_states()["A-W1"] == WorkerState("A-W1", "A")
        assert a.get_worker_metrics()["B-W0"] == WorkerMetrics("B-W0", "B")
        assert a.get_worker_metrics()["B-W0"].avg_processing_time == 0.0
        stats = a.get_stats()
        assert (stats.items_processed, stats.items_failed, stats.items_in_flight) == (0, 0, 0)
        assert stats.stage_stats == {"A": StageStats("A"), "B": StageStats("B")}
        assert stats.queue_sizes == {"A": 0, "B": 0}

    async def test_during_a_run_every_item_is_counted(self) -> None:
        held = anyio.Event()

        async def hold(value: int) -> int:
            await held.wait()
            return value

        async def skip_or_fail(value: int) -> int:
            if value == 1:
                raise KeyError("one")
            return value

        a = Pipeline(
            [
                Stage("A", 1, [skip_or_fail], task_attempts=1, skip_if=lambda value: value == 0),
                Stage("B", 2, [hold], queue_capacity=1),
            ]
        )
        async with anyio.create_task_group() as group:
            group.start_soon(a.run, range(8))
            await anyio.wait_all_tasks_blocked()
            snapshot = a.get_dashboard_snapshot()
            held.set()
        stats = snapshot.pipeline_stats
        # 0 and 2 are in progress at B, 3 is queued there; A's worker is blocked with 4; 5, 6, 7 are
        # queued for A.
        assert stats.stage_stats["A"] == StageStats("A", 3, 0, 4 - 1 + 0, 1, 1)
        assert stats.stage_stats["B"] == StageStats("B", 2, 2, 0, 0, 0)
        assert stats.queue_sizes == {"A": 3, "B": 1}
        assert (stats.items_processed, stats.items_failed, stats.items_in_flight) == (0, 1, 7)
        state = snapshot.worker_states["B-W0"]
        assert (state.status, state.current_item_id, state.current_task) == ("busy", 0, "hold")
        assert state.processing_since is not None
        assert state.processing_since <= snapshot.timestamp
        assert snapshot.worker_states["A-W0"].status == "idle"
        metrics = snapshot.worker_metrics["A-W0"]
        assert (metrics.items_processed, metrics.items_failed) == (4, 1)
        assert metrics.last_active is not None
        assert metrics.last_active <= snapshot.timestamp
        assert metrics.avg_processing_time == metrics.total_processing_time / 5
        summary = snapshot.error_summary
        assert (summary.total_failed, summary.errors_by_type, summary.errors_by_stage) == (
            1,
            {"KeyError": 1},
            {"A": 1},
        )
        # It is a copy: the rest of the run did not change it.
        assert stats.items_in_flight == 7
        assert a.get_stats().items_processed == 7

    async def test_a_worker_that_takes_an_item_shows_the_first_task(self) -> None:
        """This holds although the worker ran the last task for the item before."""
        seen: list[Any] = []

        async def first(value: int) -> int:
            return value

        async def second(value: int) -> int:
            return value

        def look(event: StatusEvent) -> None:
            if event.status == "in_progress":
                seen.append(a.get_worker_states()["A-W0"].current_task)

        a = Pipeline([Stage("A", 1, [first, second])])
        a.events.subscribe(StatusEvent, look)
        await a.run(range(3))
        assert seen == ["first"] * 3

    async def test_a_worker_that_found_no_item_was_not_active(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from antflow._state import worker
        from antflow._workers import processing, worker_loop

        now = 1.0
        for module, clock in (
            (worker_loop, "perf_counter"),
            (processing, "perf_counter"),
            (worker, "perf_counter"),
            (worker, "time"),
        ):
            monkeypatch.setattr(module, clock, lambda: now)
        async with Pipeline([Stage("A", 4, [odd_fails])]) as a:
            await a.feed([0] * 8)
            await a.join()
            await anyio.wait_all_tasks_blocked()
            before = a.get_worker_metrics()
            now = 2.0
            # Two idle workers take the items; the worker that is started then finds none.
            await a.feed([0] * 2)
            await a.join()
            await anyio.wait_all_tasks_blocked()
            after = a.get_worker_metrics()
        changed = 0
        for name, metrics in after.items():
            changed += metrics.items_processed > before[name].items_processed
            if metrics.items_processed == before[name].items_processed:
                assert metrics.last_active == before[name].last_active
                assert metrics.total_processing_time == before[name].total_processing_time
        assert 1 <= changed <= 2

    async def test_a_snapshot_can_be_pickled(self) -> None:
        a = pipeline()
        await a.run(range(4))
        snapshot = a.get_dashboard_snapshot()
        again: DashboardSnapshot = pickle.loads(pickle.dumps(snapshot))
        assert again.pipeline_stats == snapshot.pipeline_stats
        failures = again.error_summary.failed_items
        assert sorted(failure.item_id for failure in failures) == [1, 3]
        assert all(isinstance(failure, FailedItem) for failure in failures)

    async def test_a_worker_that_retired_starts_again_under_its_name(self) -> None:
        """Bursts make the pool grow and shrink, but the names of the workers stay the same."""
        gates = [anyio.Event() for _ in range(4)]

        async def source() -> AsyncIterator[int]:
            for number, gate in enumerate(gates):
                for value in range(12):
                    yield 12 * number + value
                await gate.wait()

        a = Pipeline([Stage("A", 6, [same])])
        async with anyio.create_task_group() as group:
            group.start_soon(a.run, source())
            for gate in gates:
                await anyio.wait_all_tasks_blocked()
                gate.set()
        assert a.results.values == list(range(48))
        assert list(a.get_worker_metrics()) == [f"A-W{number}" for number in range(6)]
