"""Failures that hold frames: what a kept failure keeps, and how many are kept."""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import (
    Pipeline,
    Stage,
    StageValidationError,
    StatusEvent,
    StatusTracker,
    TooManyFailuresError,
)
from antflow._model.tracebacks import clear_frames

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


class Big:
    """What a task has in a local variable."""


class Failing:
    """A task that fails in several ways, each with local variables in several frames."""

    def __init__(self) -> None:
        self.alive: list[weakref.ref[Big]] = []

    def big(self) -> Big:
        big = Big()
        self.alive.append(weakref.ref(big))
        return big

    @property
    def left(self) -> int:
        gc.collect()
        return sum(reference() is not None for reference in self.alive)

    async def __call__(self, value: int) -> None:
        local = self.big()
        await checkpoint()
        if value == 1:
            await self.deeper()
        if value == 2:
            try:
                self.plain()
            except KeyError as error:
                raise ValueError("caused") from error
        if value == 3:
            try:
                self.plain()
            except KeyError:
                raise ValueError("in context")  # noqa: B904
        if value == 4:
            errors = []
            for function in (self.plain, self.plain):
                try:
                    function()
                except KeyError as error:
                    errors.append(error)
            raise ExceptionGroup("group", errors)
        raise ValueError(local)

    async def deeper(self) -> None:
        local = self.big()
        async for _ in self.generator():
            await checkpoint()
        raise AssertionError(local)

    async def generator(self) -> AsyncIterator[int]:
        local = self.big()
        yield 1
        await checkpoint()
        raise ValueError(repr(local))

    def plain(self) -> None:
        local = self.big()
        raise KeyError(repr(local))


def frames(error: BaseException) -> list[str]:
    names = []
    traceback = error.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    return names


class TestFrames:
    async def test_a_kept_failure_has_its_traceback_and_no_locals(self) -> None:
        """The failures are kept in the results, in the pipeline and in a tracker."""
        task = Failing()
        during: list[int] = []

        async def on_failure(item_id: Any, error: BaseException, payload: Any) -> None:
            await checkpoint()
            during.append(task.left)

        for retry in ("per_task", "per_stage"):
            tracker = StatusTracker(on_failure=on_failure, history=False)
            stage = Stage("A", 1, [task], retry, 2, 0, 2, unpack_args=False)  # type: ignore[arg-type]
            pipeline = Pipeline([stage], status_tracker=tracker)
            results = await pipeline.run(range(1, 5))
            # Each callback still finds the variables.
            assert all(during)
            assert task.left == 0
            first, *_ = results.failures
            assert first.exception is not None
            assert frames(first.exception)[-3:] == ["__call__", "deeper", "generator"]
            assert tracker.get_failed_items() == results.failures == pipeline.failures

    async def test_the_error_of_a_stream_has_no_locals_either(self) -> None:
        task = Failing()
        pipeline = Pipeline([Stage("A", 2, [task], task_attempts=1)])
        async with pipeline.stream(range(5)) as stream:
            kept = [result async for result in stream]
        assert len(kept) == 5
        # The message of item 0 is such a variable.
        assert task.left == 1

    async def test_locals_are_kept_on_request(self) -> None:
        task = Failing()
        pipeline = Pipeline([Stage("A", 1, [task], task_attempts=1)], keep_frames=True)
        results = await pipeline.run(range(1, 5))
        assert task.left == len(task.alive)
        assert len(results.failures) == 4

    async def test_a_cancelled_callback_leaves_no_locals(self) -> None:
        task = Failing()

        async def on_failure(item_id: Any, error: BaseException, payload: Any) -> None:
            scope.cancel()
            await checkpoint()

        pipeline = Pipeline([Stage("A", 1, [task], task_attempts=1, on_failure=on_failure)])
        with anyio.CancelScope() as scope:
            await pipeline.run([1])
        assert len(pipeline.failures) == 1
        assert task.left == 0

    async def test_a_coroutine_that_caught_the_error_and_goes_on_is_not_closed(self) -> None:
        """Another loop task has the error in hand, gives it to the item, and goes on."""
        handed = anyio.Event()
        gate = anyio.Event()
        errors: list[BaseException] = []
        finished: list[str] = []

        async def helper() -> None:
            local = "still here"
            try:
                raise ValueError("of the helper")
            except ValueError as error:
                errors.append(error)
                handed.set()
                await gate.wait()
            finished.append(local)

        async def task(value: int) -> None:
            await handed.wait()
            raise errors[0]

        async with anyio.create_task_group() as group:
            group.start_soon(helper)
            results = await Pipeline([Stage("A", 1, [task], task_attempts=1)]).run([1])
            assert results.failures[0].exception is errors[0]
            gate.set()
        assert finished == ["still here"]

    async def test_a_generator_that_caught_the_error_and_goes_on_is_not_closed(self) -> None:
        def generator() -> Iterator[Any]:
            local = "still here"
            try:
                raise ValueError
            except ValueError as error:
                yield error
            yield local

        @types.coroutine
        def delegating() -> Any:
            return (yield from generator())

        for make in (generator, delegating):
            waiting = make()
            error = next(waiting) if make is generator else waiting.send(None)

            async def task(value: int, error: Any = error) -> None:
                raise error

            await Pipeline([Stage("A", 1, [task], task_attempts=1)]).run([1])
            assert next(waiting) == "still here"
            waiting.close()


class TestClearFrames:
    def test_errors_that_refer_to_one_another_end(self) -> None:
        first, second = ValueError(1), ValueError(2)
        first.__cause__, second.__context__ = second, first
        clear_frames(first)

    def test_a_frame_that_executes_is_left_alone(self) -> None:
        local = "here"
        try:
            raise ValueError
        except ValueError as error:
            clear_frames(error)
        assert local == "here"

    def test_an_exception_may_define_the_attributes_itself(self) -> None:
        class OddError(Exception):
            @property
            def __traceback__(self) -> Any:  # type: ignore[override]
                raise RuntimeError

            __cause__ = __context__ = __traceback__  # type: ignore[assignment]

        clear_frames(OddError())


class TestKeepFailures:
    @pytest.mark.parametrize(("keep", "kept"), [(None, [0, 1, 2, 3]), (2, [2, 3]), (0, [])])
    async def test_the_newest_are_kept_and_all_are_counted(self, keep: Any, kept: Any) -> None:
        task = Failing()
        pipeline = Pipeline([Stage("A", 1, [task], task_attempts=1)], keep_failures=keep)
        results = await pipeline.run(range(4))
        assert [failure.item_id for failure in results.failures] == kept
        assert [failure.item_id for failure in pipeline.failures] == kept
        summary = pipeline.get_error_summary()
        assert (summary.total_failed, summary.errors_by_stage) == (4, {"A": 4})
        assert sum(summary.errors_by_type.values()) == 4
        assert [failure.item_id for failure in summary.failed_items] == kept
        assert pipeline.get_stats().items_failed == 4

    @pytest.mark.parametrize("keep", [None, 1, 0])
    async def test_failures_that_are_not_kept_count_for_max_failures(self, keep: Any) -> None:
        pipeline = Pipeline([Stage("A", 1, [Failing()], task_attempts=1)], keep_failures=keep)
        with pytest.raises(TooManyFailuresError) as caught:
            await pipeline.run(range(9), max_failures=2)
        assert str(caught.value).startswith("3 items failed and max_failures is 2")
        assert ("the last: item 2 " in str(caught.value)) == (keep != 0)
        assert caught.value.results is not None
        assert len(caught.value.results.failures) == (3 if keep is None else keep)

    def test_wrong_values_are_refused(self) -> None:
        stage = Stage("A", 1, [Failing()])
        with pytest.raises(StageValidationError, match="keep_failures must be a whole number of"):
            Pipeline([stage], keep_failures=-1)
        with pytest.raises(StageValidationError, match="keep_frames must be True or False"):
            Pipeline([stage], keep_frames=1)  # type: ignore[arg-type]
        with pytest.raises(StageValidationError, match="keep_done must be a whole number of"):
            StatusTracker(keep_done=-1)


class TestKeepDone:
    async def test_the_items_that_finished_last_are_kept(self) -> None:
        seen: list[Any] = []

        def on_status_change(event: StatusEvent) -> None:
            seen.append(tracker.get_status(event.item_id) is not None)

        async def fail_odd(value: int) -> int:
            if value % 2:
                raise ValueError
            return value

        async def same(value: int) -> int:
            return value

        for history in (True, 3, False):
            tracker = StatusTracker(on_status_change, history=history, keep_done=3)
            stages = [
                Stage("A", 1, [fail_odd], task_attempts=1),
                Stage("B", 1, [same], skip_if=lambda value: value == 4),
            ]
            pipeline = Pipeline(stages, status_tracker=tracker)
            for value in range(10):
                await pipeline.run([{"id": value, "value": value}])
            assert tracker.get_tracked_ids() == [7, 8, 9]
            assert [item.item_id for item in tracker.get_failed_items()] == [7, 9]
            assert sum(tracker.get_stats().values()) == 3
            # Fed once more, an item is not finished, and is the last to finish then.
            await pipeline.run([{"id": 7, "value": 6}, {"id": "new", "value": 0}])
            assert tracker.get_tracked_ids() == [7, 9, "new"]
            assert tracker.get_stats()["completed"] == 2
        assert all(seen)

    async def test_nothing_that_is_finished_need_be_kept(self) -> None:
        tracker = StatusTracker(keep_done=0)
        pipeline = Pipeline([Stage("A", 1, [Failing()], task_attempts=1)], status_tracker=tracker)
        await pipeline.run(range(5))
        assert tracker.get_tracked_ids() == []
        assert set(tracker.get_stats().values()) == {0}

    async def test_an_item_can_be_forgotten(self) -> None:
        tracker = StatusTracker(keep_done=9)
        pipeline = Pipeline([Stage("A", 1, [Failing()], task_attempts=1)], status_tracker=tracker)
        await pipeline.run(range(4))
        assert tracker.forget(2)
        assert not tracker.forget(2)
        assert not tracker.forget("unknown")
        assert tracker.get_tracked_ids() == [0, 1, 3]
        assert (tracker.get_status(2), tracker.get_history(2)) == (None, [])
        assert tracker.get_stats()["failed"] == 3
