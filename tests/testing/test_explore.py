"""Schedules: decisions that are obeyed, replayed, shrunk; and runs that are stuck."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio
from anyio.lowlevel import checkpoint
from hypothesis import given, settings

from antflow import Pipeline, Stage
from antflow.testing import (
    Deadlock,
    Decision,
    Exploration,
    Livelock,
    cancel,
    cancel_natively,
    explore,
    interrupt,
    kill,
    random_schedule,
    schedules,
)
from antflow.testing._exploration import explore as exploration

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def visits(count: int = 3, rounds: int = 3) -> str:
    """Let *count* tasks say their letter, each several times, and return what was said."""
    said: list[str] = []

    async def say(letter: str) -> None:
        for _ in range(rounds):
            said.append(letter)
            await checkpoint()

    async with anyio.create_task_group() as group:
        for letter in "abcdefgh"[:count]:
            group.start_soon(say, letter)
    return "".join(said)


async def pipeline_run(count: int = 12) -> list[int]:
    async def task(value: int) -> int:
        await anyio.sleep(value % 3)
        return 2 * value

    stages = [Stage("A", 3, [task], queue_capacity=2), Stage("B", 2, [task], queue_capacity=1)]
    return (await Pipeline(stages).run(range(count))).values


@both
def test_the_plain_order_is_first_come_first_served(backend: str) -> None:
    assert explore(visits, backend=backend) == "abcabcabc"


@both
def test_a_picked_task_goes_first(backend: str) -> None:
    said = set()
    for step in range(15):
        said.add(explore(visits, backend=backend, schedule=[Decision(step, pick=1)]))
    assert {"bacabcabc", "acbabcabc", "abcbacabc"} <= said or {"bacbacbac"} <= said
    assert all(sorted(word) == sorted("abcabcabc") for word in said if word)


@both
def test_a_paused_task_is_overtaken(backend: str) -> None:
    said = {
        explore(visits, backend=backend, schedule=[Decision(step, pause=1000)])
        for step in range(15)
    }
    assert {"bcbcbcaaa", "abcbcbcaa", "abcabcbca"} <= said


@both
def test_time_passes_while_a_task_is_paused(backend: str) -> None:
    """A pause is what a machine does to a program: the timers of others run out meanwhile."""

    async def main() -> list[str]:
        said = []

        async def steps() -> None:
            await checkpoint()
            said.append(f"task at {anyio.current_time():g}")

        async def timer() -> None:
            for _ in range(3):
                await anyio.sleep(1)
            said.append(f"timer at {anyio.current_time():g}")

        async with anyio.create_task_group() as group:
            group.start_soon(steps)
            group.start_soon(timer)
        return said

    seen = set()
    for step in range(12):
        for pause in (5, 1000):
            said = explore(main, backend=backend, schedule=[Decision(step, pause=pause)])
            assert said is not None
            seen.add(tuple(said))
    assert ("task at 0", "timer at 3") in seen
    assert ("timer at 3", "task at 3") in seen


@both
@given(schedule=schedules())
def test_a_schedule_makes_the_same_run_again(backend: str, schedule: list[Decision]) -> None:
    first = Exploration(backend, schedule)
    assert first.run(pipeline_run) == [4 * value for value in range(12)]
    again = Exploration(backend, first.decisions)
    again.run(pipeline_run)
    assert again.trace == first.trace
    assert again.decisions == first.decisions
    assert again.steps == first.steps <= len(again.trace)


@both
def test_seeds_explore(backend: str) -> None:
    traces = set()
    for seed in range(20):
        exploration = Exploration(backend, random_schedule(seed))
        assert exploration.run(pipeline_run) == [4 * value for value in range(12)]
        traces.add(tuple(exploration.trace))
    assert len(traces) == 20


def test_the_decisions_of_a_seed_are_always_the_same() -> None:
    decisions = random_schedule(7)
    assert [next(decisions) for _ in range(4)] == [
        Decision(step=5, pick=1, pause=2),
        Decision(step=13, pick=3, pause=0),
        Decision(step=13, pick=3, pause=0),
        Decision(step=19, pick=7, pause=0),
    ]


@both
def test_hypothesis_comes_down_to_the_decision_that_matters(backend: str) -> None:
    """A counter that is read, and written after an await: the classic."""

    async def count() -> None:
        counter = 0

        async def increase(delay: float) -> None:
            nonlocal counter
            await anyio.sleep(delay)
            seen = counter
            await checkpoint()
            counter = seen + 1

        async with anyio.create_task_group() as group:
            for delay in range(3):
                group.start_soon(increase, delay)
        assert counter == 3

    failing: list[list[Decision]] = []

    @settings(max_examples=300, database=None, derandomize=True)
    @given(schedule=schedules())
    def check(schedule: list[Decision]) -> None:
        try:
            explore(count, backend=backend, schedule=schedule)
        except BaseException:
            failing.append(schedule)
            raise

    with pytest.raises(AssertionError):
        check()
    assert len(failing[-1]) == 1
    assert failing[-1][0].pause
    explore(count, backend=backend)


@both
def test_nothing_left_to_run_is_a_deadlock_and_says_who_waits_where(backend: str) -> None:
    async def waits_for_ever() -> None:
        await anyio.Event().wait()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(waits_for_ever)
            await anyio.sleep(5)

    with pytest.raises(Deadlock) as raised:
        explore(main, backend=backend)
    message = str(raised.value)
    assert "nothing can run, and no timer is set" in message
    assert "in waits_for_ever" in message
    assert "test_explore.py" in message
    assert "in main" in message
    assert "The schedule: plain" in message
    with pytest.raises(Deadlock, match=r"Decision\(step=1, pick=1, pause=0\)"):
        explore(main, backend=backend, schedule=[Decision(1, 1)])


@both
def test_too_many_steps_are_a_livelock(backend: str) -> None:
    async def spins() -> None:
        while True:
            await checkpoint()

    with pytest.raises(Livelock, match="did not end after 1001 steps") as raised:
        explore(spins, backend=backend, max_steps=1000)
    assert "in spins" in str(raised.value)


@both
@pytest.mark.parametrize("spins", [False, True])
def test_a_shield_does_not_keep_a_stuck_run_alive(backend: str, spins: bool) -> None:
    ended = []

    async def main() -> None:
        try:
            with anyio.CancelScope(shield=True):
                while spins:
                    await checkpoint()
                await anyio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(Livelock if spins else Deadlock):
        explore(main, backend=backend, max_steps=1000)
    assert ended == [True]


@both
def test_a_stuck_run_may_end_with_an_error_of_its_own(backend: str) -> None:
    async def main() -> None:
        try:
            await anyio.Event().wait()
        finally:
            raise ValueError

    with pytest.raises(Deadlock):
        explore(main, backend=backend)


@both
def test_threads_are_waited_for_while_time_stands_still(backend: str) -> None:
    """Virtual time would otherwise run out in the instant that a thread takes."""
    go_on = threading.Event()

    def in_thread() -> str:
        assert go_on.wait(30)
        return "done"

    async def main() -> tuple[str, float]:
        async with anyio.create_task_group() as group:

            async def release() -> None:
                await checkpoint()
                go_on.set()

            with anyio.fail_after(60):
                group.start_soon(release)
                result = await anyio.to_thread.run_sync(in_thread)
        return result, anyio.current_time()

    assert explore(main, backend=backend) == ("done", 0.0)


def test_threads_of_asyncio_are_waited_for_as_well() -> None:
    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        with anyio.fail_after(60):
            result = await loop.run_in_executor(None, lambda: time.sleep(0.003) or "done")
        return result, loop.time()

    assert explore(main) == ("done", 0.0)


@both
def test_errors_come_out_as_they_are(backend: str) -> None:
    async def main() -> None:
        await checkpoint()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        explore(main, backend=backend)


@both
def test_cancel_at_each_step_ends_the_run_there(backend: str) -> None:
    whole = Exploration(backend)
    whole.run(pipeline_run)
    for step in range(whole.steps):
        exploration = Exploration(backend, hooks={step: cancel})
        result = exploration.run(pipeline_run)
        assert exploration.cancelled
        assert result is None or len(result) == 12
        assert exploration.steps <= whole.steps + 12
    late = Exploration(backend, hooks={whole.steps + 100: cancel})
    assert late.run(pipeline_run) is not None
    assert not late.cancelled


def test_native_cancellation_is_what_comes_out() -> None:
    whole = Exploration()
    whole.run(pipeline_run)
    ended = 0
    for step in range(1, whole.steps):
        try:
            explore(pipeline_run, hooks={step: cancel_natively})
        except asyncio.CancelledError:
            ended += 1
    assert ended >= whole.steps - 5
    explore(pipeline_run, hooks={0: cancel_natively})


def test_trio_knows_no_native_cancellation() -> None:
    with pytest.raises(ValueError, match=r"trio has no Task\.cancel"):
        Exploration("trio", hooks={1: cancel_natively})


@pytest.fixture
def default_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C interrupt, which it does not where a shell started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="raises no such signal")
@pytest.mark.usefixtures("default_ctrl_c")
@both
def test_ctrl_c_at_a_step(backend: str) -> None:
    for step in (0, 5, 20, 40):
        try:
            explore(pipeline_run, backend=backend, hooks={step: interrupt})
        except KeyboardInterrupt:
            continue
        except asyncio.CancelledError:
            # There, anyio's runner leaves it as what asyncio made of it.
            assert sys.version_info < (3, 11)
            continue
        pytest.fail("it was not interrupted")


def test_the_process_dies_at_a_step() -> None:
    code = """
import anyio
from antflow.testing import explore, kill
async def main():
    for number in range(9):
        print(number, flush=True)
        await anyio.sleep(1)
explore(main, hooks={4: kill})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == [b"0", b"1", b"2", b"3"]


def test_kill_is_the_signal_that_nobody_can_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(exploration.os, "kill", lambda *args: sent.append(args))
    explore(visits, hooks={2: kill})
    assert sent == [(os.getpid(), signal.SIGKILL)]


def test_hooks_see_the_exploration() -> None:
    seen = []
    explore(visits, hooks={3: lambda exploration: seen.append(exploration.steps)})
    assert seen == [3]


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="backend must be 'asyncio' or 'trio', got 'uvloop'"):
        explore(visits, backend="uvloop")


@pytest.mark.parametrize("arguments", [(-1,), (0, -1), (0, 0, -1), ("1",)])
def test_a_decision_has_whole_numbers(arguments: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Decision(*arguments)


@both
def test_a_loop_that_keeps_its_tasks_elsewhere_is_told_of(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exploration.Exploration, "_options", lambda self: {})
    with pytest.raises(RuntimeError, match=f"this version of {backend} keeps what can run"):
        explore(visits, backend=backend)


def test_wait_all_tasks_blocked_waits_for_those_held_back() -> None:
    """On trio, which would otherwise take a task that is held back for a blocked one."""

    async def main() -> list[str]:
        said = []

        async def steps() -> None:
            for _ in range(5):
                await checkpoint()
            said.append("steps")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(steps)
            await trio.testing.wait_all_tasks_blocked()
            said.append("blocked")
        return said

    for step in range(12):
        said = explore(main, backend="trio", schedule=[Decision(step, pause=1000)])
        assert said == ["steps", "blocked"]


@both
def test_background_tasks_and_callbacks_keep_their_place(backend: str) -> None:
    """A scope that is cancelled again and again, as anyio does it on asyncio, ends with them."""

    async def main() -> int:
        ended = 0

        async def stubborn() -> None:
            nonlocal ended
            for _ in range(3):
                try:
                    await anyio.sleep(10)
                except anyio.get_cancelled_exc_class():
                    ended += 1
            await checkpoint()

        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(stubborn)
                await anyio.sleep(1)
                scope.cancel()
        return ended

    assert explore(main, backend=backend) == 9
    for seed in range(30):
        # Who is held back until the scope is cancelled sleeps fewer times than that.
        ended = explore(main, backend=backend, schedule=random_schedule(seed), max_steps=2000)
        assert ended is not None
        assert 0 <= ended <= 9


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_task_may_be_held_back_when_its_thread_has_returned(backend: str) -> None:
    async def main() -> int:
        return await anyio.to_thread.run_sync(len, "abc")

    whole = Exploration(backend)
    assert whole.run(main) == 3
    for step in range(whole.steps):
        schedule = [Decision(step, 0, 9), Decision(step, 1, 9)]
        assert explore(main, backend=backend, schedule=schedule) == 3
