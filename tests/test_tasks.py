"""Tasks: any callable, in sequence, with time-outs, `skip_if` and unpacked arguments."""

from __future__ import annotations

import asyncio
import functools
import threading
from contextvars import ContextVar
from typing import Any
from unittest.mock import AsyncMock

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from antflow import Pipeline, Stage


async def run(tasks: list[Any], items: Any, **arguments: Any) -> Any:
    return await Pipeline([Stage("A", tasks=tasks, task_attempts=1, **arguments)]).run(items)


async def double(value: int) -> int:
    await checkpoint()
    return 2 * value


class Client:
    factor = 3

    async def multiply(self, value: int) -> int:
        return self.factor * value

    def multiply_plainly(self, value: int) -> int:
        return self.factor * value

    async def __call__(self, value: int) -> int:
        return self.factor * value


async def add(first: int, second: int) -> int:
    return first + second


class TestKinds:
    @pytest.mark.parametrize(
        "task",
        [
            Client().multiply,
            Client().multiply_plainly,
            Client(),
            functools.partial(Client().multiply),
            functools.partial(functools.partial(Client().multiply_plainly)),
            lambda value: 3 * value,
            lambda value: Client().multiply(value),
            AsyncMock(return_value=6),
            functools.partial(Client()),
        ],
    )
    async def test_any_callable_is_a_task(self, task: Any) -> None:
        assert (await run([task], [2])).values == [6]

    async def test_a_class_with_async_instances_is_a_plain_function(self) -> None:
        class Wrapper(Client):
            def __init__(self, value: int) -> None:
                self.value = value

        (result,) = await run([Wrapper], [2])
        assert isinstance(result.value, Wrapper)

    async def test_tasks_run_in_sequence(self) -> None:
        tasks = [double, functools.partial(add, 1), str, lambda text: text + "!"]
        assert (await run(tasks, [1, 2])).values == ["3!", "5!"]

    async def test_a_plain_function_runs_in_a_thread_and_does_not_block_the_loop(self) -> None:
        main = threading.get_ident()
        seen: list[int] = []
        # The function can only return if the event loop keeps running.
        released = threading.Event()

        def block(value: int) -> int:
            seen.append(threading.get_ident())
            assert released.wait(30)
            return value

        async def release() -> None:
            released.set()

        async with anyio.create_task_group() as group:
            group.start_soon(run, [block], [1])
            group.start_soon(release)
        assert seen
        assert main not in seen

    async def test_there_are_as_many_threads_as_workers(self) -> None:
        """The default limit of anyio, 40 threads, does not apply."""
        inside = 0
        most = 0
        lock = threading.Lock()
        all_started = threading.Barrier(50)

        def count(value: int) -> int:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            all_started.wait(30)
            with lock:
                inside -= 1
            return value

        results = await run([count], range(100), workers=50)
        assert len(results) == 100
        assert most == 50

    async def test_a_returned_exception_is_a_value(self) -> None:
        error = ValueError("fine")

        async def give(value: Any) -> Any:
            return error

        assert (await run([give], [1])).values == [error]

    async def test_a_stop_iteration_fails_its_item_only(self) -> None:
        async def exhausted(value: int) -> int:
            return next(iter(())) if value == 1 else value

        def exhausted_plainly(value: int) -> int:
            return next(iter(())) if value == 1 else value

        for task in (exhausted, exhausted_plainly):
            results = await run([task], range(3))
            assert results.values == [0, 2]
            assert results.failures[0].error_type in ("RuntimeError", "StopIteration")


class TestUnpackArgs:
    async def test_tuples_lists_and_dicts_are_unpacked(self) -> None:
        items = [(1, 2), [3, 4], {"first": 5, "second": 6}]
        assert (await run([add], items, unpack_args=True)).values == [3, 7, 11]

        def plain_add(first: int, second: int) -> int:
            return first + second

        assert (await run([plain_add], items, unpack_args=True)).values == [3, 7, 11]

    async def test_other_values_are_passed_unchanged(self) -> None:
        assert (await run([double], [4], unpack_args=True)).values == [8]

    async def test_arguments_that_do_not_fit_fail_their_item(self) -> None:
        results = await run([add], [(1, 2), (1, 2, 3)], unpack_args=True)
        assert results.values == [3]
        assert "positional arguments" in results.failures[0].error


class TestSkipIf:
    @pytest.mark.parametrize("kind", ["sync", "async"])
    async def test_a_skipped_item_is_passed_unchanged(self, kind: str) -> None:
        async def even(value: int) -> bool:
            return value % 2 == 0

        skip_if = even if kind == "async" else lambda value: value % 2 == 0
        skipped: list[Any] = []
        results = await run(
            [double],
            range(4),
            skip_if=skip_if,
            on_skip=lambda item_id, value, payload: skipped.append((item_id, value, payload)),
        )
        assert results.values == [0, 2, 2, 6]
        assert skipped == [
            (0, 0, {"id": 0, "value": 0, "metadata": {}}),
            (2, 2, {"id": 2, "value": 2, "metadata": {}}),
        ]

    async def test_an_error_in_skip_if_fails_the_item(self) -> None:
        results = await run([double], [1, "x"], skip_if=lambda value: value > 1)
        assert results.values == [2]
        assert results.failures[0].task_name == "skip_if"

    async def test_a_fatal_error_in_skip_if_ends_the_run(self) -> None:
        class Fatal(BaseException):
            pass

        def stop(value: int) -> bool:
            raise Fatal

        with pytest.raises(Fatal):
            await run([double], [1], skip_if=stop)


class TestTimeout:
    @pytest.mark.virtual_time
    async def test_an_attempt_that_takes_too_long_fails(self) -> None:
        async def sleep(value: float) -> float:
            await anyio.sleep(value)
            return value

        began = anyio.current_time()
        results = await run([sleep], [1, 9], task_timeout=5)
        assert anyio.current_time() - began == pytest.approx(6)
        assert results.values == [1]
        (failure,) = results.failures
        assert failure.error_type == "TimeoutError"
        assert failure.error == "task 'sleep' of stage 'A' took longer than its task_timeout of 5 s"

    @pytest.mark.virtual_time
    async def test_each_attempt_has_its_own_deadline(self) -> None:
        attempts = 0

        async def first_is_slow(value: int) -> int:
            nonlocal attempts
            attempts += 1
            await anyio.sleep(9 if attempts == 1 else 4)
            return value

        stage = Stage("A", 1, [first_is_slow], task_timeout=5, task_wait_seconds=7)
        began = anyio.current_time()
        assert (await Pipeline([stage]).run([1])).values == [1]
        assert anyio.current_time() - began == pytest.approx(5 + 7 + 4)

    @pytest.mark.virtual_time
    async def test_a_task_that_returns_late_without_awaiting_times_out(
        self, anyio_backend_name: str
    ) -> None:
        async def compute(value: int) -> int:
            # Advance the clock, as a long computation would.
            if anyio_backend_name == "trio":
                trio.lowlevel.current_clock().jump(9)
            else:
                asyncio.get_running_loop().jump(9)  # type: ignore[attr-defined]
            return value

        results = await run([compute], [1], task_timeout=5)
        assert results.failures[0].error_type == "TimeoutError"

    async def test_a_function_in_a_thread_is_not_interrupted_but_times_out(self) -> None:
        """The function returns only after its deadline has passed."""

        def slow(value: int) -> int:
            # Wait until the deadline has passed.
            assert deadline_passed.wait(30)
            return value

        deadline_passed = threading.Event()

        async def wait_for_deadline() -> None:
            with anyio.move_on_after(0.002):
                await anyio.Event().wait()
            deadline_passed.set()

        results = None

        async def run_it() -> None:
            nonlocal results
            results = await run([slow], [1], task_timeout=0.001)

        async with anyio.create_task_group() as group:
            group.start_soon(run_it)
            await anyio.wait_all_tasks_blocked()
            await wait_for_deadline()
        assert results is not None
        assert results.failures[0].error_type == "TimeoutError"


class TestContext:
    async def test_tasks_and_callbacks_see_the_context_variables_of_the_caller(self) -> None:
        variable: ContextVar[str] = ContextVar("variable", default="unset")
        seen: list[str] = []

        async def look(value: int) -> int:
            seen.append(variable.get())
            return value

        def look_in_thread(value: int) -> int:
            seen.append(variable.get())
            return value

        variable.set("the caller's")
        await run([look, look_in_thread], [1], on_success=lambda *_: seen.append(variable.get()))
        assert seen == ["the caller's"] * 3

    async def test_context_variables_set_by_a_task_reach_neither_caller_nor_new_workers(
        self,
    ) -> None:
        """New workers do not inherit the context of the worker that starts them."""
        variable: ContextVar[str] = ContextVar("variable", default="unset")
        first_seen: dict[str, str] = {}
        gate = anyio.Event()

        async def task(value: int) -> int:
            states = pipeline.get_worker_states().values()
            (worker,) = [state.worker_name for state in states if state.current_item_id == value]
            first_seen.setdefault(worker, variable.get())
            variable.set("set by a task")
            if value >= 10:
                await gate.wait()
            return value

        async def source() -> Any:
            for value in range(10):
                yield value
            await anyio.wait_all_tasks_blocked()
            for value in range(10, 15):
                yield value
            await anyio.wait_all_tasks_blocked()
            gate.set()

        pipeline = Pipeline([Stage("A", 5, [task])])
        await pipeline.run(source())
        assert len(first_seen) == 5
        assert set(first_seen.values()) == {"unset"}
        assert variable.get() == "unset"
