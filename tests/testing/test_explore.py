"""Schedules are followed, replayed and shrunk; stuck runs end; hooks are called at their steps."""

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


async def spell(count: int = 3, rounds: int = 3) -> str:
    """Let each of *count* tasks write its letter *rounds* times, and return what was written."""
    written: list[str] = []

    async def write(letter: str) -> None:
        for _ in range(rounds):
            written.append(letter)
            await checkpoint()

    async with anyio.create_task_group() as group:
        for letter in "abcdefgh"[:count]:
            group.start_soon(write, letter)
    return "".join(written)


async def pipeline_run(count: int = 12) -> list[int]:
    async def task(value: int) -> int:
        await anyio.sleep(value % 3)
        return 2 * value

    stages = [Stage("A", 3, [task], queue_capacity=2), Stage("B", 2, [task], queue_capacity=1)]
    return (await Pipeline(stages).run(range(count))).values


@both
def test_the_default_order_is_first_come_first_served(backend: str) -> None:
    assert explore(spell, backend=backend) == "abcabcabc"


@both
def test_a_picked_task_goes_first(backend: str) -> None:
    spelled = set()
    for step in range(15):
        spelled.add(explore(spell, backend=backend, schedule=[Decision(step, pick=1)]))
    assert {"bacabcabc", "acbabcabc", "abcbacabc"} <= spelled or {"bacbacbac"} <= spelled
    assert all(sorted(word) == sorted("abcabcabc") for word in spelled if word)


@both
def test_a_paused_task_is_overtaken(backend: str) -> None:
    spelled = {
        explore(spell, backend=backend, schedule=[Decision(step, pause=1000)]) for step in range(15)
    }
    assert {"bcbcbcaaa", "abcbcbcaa", "abcabcbca"} <= spelled


@both
def test_virtual_time_passes_while_a_task_is_paused(backend: str) -> None:
    """The timers of other tasks expire during a pause, as on a busy machine."""

    async def main() -> list[str]:
        events = []

        async def steps() -> None:
            await checkpoint()
            events.append(f"task at {anyio.current_time():g}")

        async def timer() -> None:
            for _ in range(3):
                await anyio.sleep(1)
            events.append(f"timer at {anyio.current_time():g}")

        async with anyio.create_task_group() as group:
            group.start_soon(steps)
            group.start_soon(timer)
        return events

    seen = set()
    for step in range(12):
        for pause in (5, 1000):
            events = explore(main, backend=backend, schedule=[Decision(step, pause=pause)])
            assert events is not None
            seen.add(tuple(events))
    assert ("task at 0", "timer at 3") in seen
    assert ("timer at 3", "task at 3") in seen


@both
@given(schedule=schedules())
def test_a_schedule_reproduces_its_run(backend: str, schedule: list[Decision]) -> None:
    first = Exploration(backend, schedule)
    assert first.run(pipeline_run) == [4 * value for value in range(12)]
    again = Exploration(backend, first.decisions)
    again.run(pipeline_run)
    assert again.trace == first.trace
    assert again.decisions == first.decisions
    assert again.steps == first.steps <= len(again.trace)


@both
def test_different_seeds_give_different_runs(backend: str) -> None:
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
def test_hypothesis_shrinks_to_the_decision_that_matters(backend: str) -> None:
    """The bug is a counter that is read before an await and written after it."""

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
def test_a_deadlock_says_where_each_task_waits(backend: str) -> None:
    async def waits_for_ever() -> None:
        await anyio.Event().wait()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(waits_for_ever)
            await anyio.sleep(5)

    with pytest.raises(Deadlock) as raised:
        explore(main, backend=backend)
    message = str(raised.value)
    assert "no task can run and no timer is set" in message
    assert "in waits_for_ever" in message
    assert "test_explore.py" in message
    assert "in main" in message
    assert "Decisions of the schedule: none" in message
    with pytest.raises(Deadlock, match=r"Decision\(step=1, pick=1, pause=0\)"):
        explore(main, backend=backend, schedule=[Decision(1, 1)])


@both
def test_too_many_steps_are_a_livelock(backend: str) -> None:
    async def spins() -> None:
        while True:
            await checkpoint()

    with pytest.raises(Livelock, match="did not end after 1001 steps and callbacks") as raised:
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
def test_a_deadlock_takes_precedence_over_an_error_of_the_function(backend: str) -> None:
    async def main() -> None:
        try:
            await anyio.Event().wait()
        finally:
            raise ValueError

    with pytest.raises(Deadlock):
        explore(main, backend=backend)


@both
def test_virtual_time_stands_still_while_a_thread_runs(backend: str) -> None:
    """Otherwise a time-out in virtual time would expire before any thread could return."""
    released = threading.Event()

    def in_thread() -> str:
        assert released.wait(30)
        return "done"

    async def main() -> tuple[str, float]:
        async with anyio.create_task_group() as group:

            async def release() -> None:
                await checkpoint()
                released.set()

            with anyio.fail_after(60):
                group.start_soon(release)
                result = await anyio.to_thread.run_sync(in_thread)
        return result, anyio.current_time()

    assert explore(main, backend=backend) == ("done", 0.0)


def test_virtual_time_stands_still_for_an_executor_of_asyncio() -> None:
    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        with anyio.fail_after(60):
            result = await loop.run_in_executor(None, lambda: time.sleep(0.003) or "done")
        return result, loop.time()

    assert explore(main) == ("done", 0.0)


@both
def test_errors_are_raised_unchanged(backend: str) -> None:
    async def main() -> None:
        await checkpoint()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        explore(main, backend=backend)


@both
def test_cancel_ends_the_run_at_each_step(backend: str) -> None:
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


def test_native_cancellation_raises_cancelled_error() -> None:
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


def test_native_cancellation_is_rejected_for_trio() -> None:
    with pytest.raises(ValueError, match=r"trio has no Task\.cancel"):
        Exploration("trio", hooks={1: cancel_natively})


@pytest.fixture
def default_ctrl_c() -> Iterator[None]:
    """Set the default handler of SIGINT, which a shell disables for a process in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT to raise")
@pytest.mark.usefixtures("default_ctrl_c")
@both
def test_interrupt_raises_keyboard_interrupt(backend: str) -> None:
    for step in (0, 5, 20, 40):
        try:
            explore(pipeline_run, backend=backend, hooks={step: interrupt})
        except KeyboardInterrupt:
            continue
        except asyncio.CancelledError:
            # Before 3.11, anyio's runner does not turn this into a KeyboardInterrupt.
            assert sys.version_info < (3, 11)
            continue
        pytest.fail("the run was not interrupted")


def test_kill_ends_the_process_at_its_step() -> None:
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


def test_kill_sends_the_signal_that_cannot_be_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(exploration.os, "kill", lambda *args: sent.append(args))
    explore(spell, hooks={2: kill})
    assert sent == [(os.getpid(), signal.SIGKILL)]


def test_hooks_are_called_with_the_exploration() -> None:
    seen = []
    explore(spell, hooks={3: lambda exploration: seen.append(exploration.steps)})
    assert seen == [3]


def test_an_unknown_backend_is_rejected() -> None:
    with pytest.raises(ValueError, match="backend must be 'asyncio' or 'trio', got 'uvloop'"):
        explore(spell, backend="uvloop")


@pytest.mark.parametrize("arguments", [(-1,), (0, -1), (0, 0, -1), ("1",)])
def test_a_decision_has_nonnegative_ints(arguments: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Decision(*arguments)


@both
def test_an_event_loop_without_the_expected_queue_is_an_error(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exploration.Exploration, "_options", lambda self: {})
    with pytest.raises(
        RuntimeError, match=f"this version of {backend}: it does not find the queue"
    ):
        explore(spell, backend=backend)


def test_wait_all_tasks_blocked_waits_for_held_tasks() -> None:
    """Otherwise trio would treat a held task as a blocked one."""

    async def main() -> list[str]:
        events = []

        async def steps() -> None:
            for _ in range(5):
                await checkpoint()
            events.append("steps")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(steps)
            await trio.testing.wait_all_tasks_blocked()
            events.append("blocked")
        return events

    for step in range(12):
        events = explore(main, backend="trio", schedule=[Decision(step, pause=1000)])
        assert events == ["steps", "blocked"]


@both
def test_repeated_cancellation_ends_under_each_schedule(backend: str) -> None:
    """On asyncio, anyio delivers a cancellation in repeated callbacks until the scope ends."""

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
        # A task that is held back until the scope is cancelled sleeps fewer times.
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
