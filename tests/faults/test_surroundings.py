"""Rows 13, 26 and 28: Ctrl-C, context variables, and libraries for the other backend."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextvars import ContextVar
from typing import Any

import pytest
import trio
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st

from antflow import Pipeline, Stage, StatusEvent
from antflow.testing import Decision, explore, interrupt
from faults.kit import at_each_step, both_backends, explored, no_leaked_tasks, row

INTERRUPTED = "Ctrl-C: a plain KeyboardInterrupt is raised, and items in flight do not fail"
CONTEXT = "Context variables: what a task sets for one item is not visible to the next"
FOREIGN = "A library for the other backend: the item fails with a hint, and the run continues"

new: ContextVar[int] = ContextVar("new")
known: ContextVar[str] = ContextVar("known")


async def same(value: Any) -> Any:
    await checkpoint()
    return value


@row(13, INTERRUPTED)
@both_backends
def test_ctrl_c_at_any_step_fails_no_item(backend: str) -> None:
    pipeline = Pipeline([Stage("A", 2, [same], queue_capacity=1), Stage("B", 2, [same])])

    async def main() -> None:
        await pipeline.run(range(6))

    for exploration in at_each_step(backend, main, interrupt):
        try:
            exploration.run(main)
        except KeyboardInterrupt:
            pass
        except asyncio.CancelledError:
            # On Python 3.10, neither asyncio.run() nor anyio converts this to a KeyboardInterrupt.
            assert sys.version_info < (3, 11)
        else:
            # The interrupt came after the last item was finished.
            assert len(pipeline.results) == 6
        assert pipeline.failures == []
        assert pipeline.get_stats().items_in_flight == 0


SCRIPT = """
import asyncio, signal, sys, threading, time
import anyio, trio
from antflow import Pipeline, Stage

failed = []
started = 0

def report_started():
    print("started", flush=True)

class ReportsWaiting(trio.abc.Instrument):
    def before_io_wait(self, timeout):
        trio.lowlevel.remove_instrument(self)
        report_started()

async def task(value):
    global started
    started += 1
    if {where!r} == "task" and value == 5:
        signal.raise_signal(signal.SIGINT)
    if started == 4:
        # If where is "outside", the signal must arrive while every task waits.
        if {where!r} == "task":
            report_started()
        elif "trio" in {runner!r}:
            trio.lowlevel.add_instrument(ReportsWaiting())
        else:
            asyncio.get_running_loop().call_later(0.01, report_started)
    await anyio.sleep({seconds})
    return value

pipeline = Pipeline(
    [Stage("A", 4, [task], on_failure=lambda *args: failed.append(args)), Stage("B", 2, [task])]
)

async def main():
    try:
        await pipeline.run(range(10_000))
    finally:
        print("left", flush=True)

try:
    {runner}
except KeyboardInterrupt as error:
    print("interrupted", len(pipeline.failures), len(failed), pipeline.get_stats().items_in_flight)
"""

RUNNERS = [
    "asyncio.run(main())",
    "trio.run(main)",
    "anyio.run(main, backend='asyncio')",
    "anyio.run(main, backend='trio')",
]


@row(13, INTERRUPTED)
@pytest.mark.skipif(sys.platform == "win32", reason="sends no such signal")
@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("where", ["task", "outside"])
def test_ctrl_c_ends_a_program_with_keyboard_interrupt(runner: str, where: str) -> None:
    seconds = 0.001 if where == "task" else 60
    code = SCRIPT.format(where=where, seconds=seconds, runner=runner)
    # As in a shell: if the tests run in the background, the process may inherit an ignored SIGINT.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + code
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "started\n"
        if where == "outside":
            process.send_signal(2)
        out, err = process.stdout.read(), process.stderr.read()
    assert out.split("\n") == ["left", "interrupted 0 0 0", ""], err
    if sys.version_info >= (3, 11) or where == "outside":
        # On Python 3.10, asyncio.run() reports each loop task that ended with a KeyboardInterrupt.
        assert err == ""


@row(26, CONTEXT)
@explored(2, workers=st.integers(1, 3), setters=st.sets(st.integers(0, 8)))
def test_a_context_variable_does_not_leak_from_item_to_item(
    backend: str, schedule: list[Decision], workers: int, setters: set[int]
) -> None:
    seen: list[Any] = []
    worker_names = set()

    async def record_and_set(value: int) -> int:
        seen.append((new.get(None), known.get()))
        if value in setters:
            new.set(value)
        if value % 2:
            known.set(f"item {value}")
        await checkpoint()
        return value

    async def check_again(value: int) -> int:
        """A later task of the same stage sees what the previous task set for this item."""
        assert new.get(None) == (value if value in setters else None)
        assert known.get() == (f"item {value}" if value % 2 else "caller")
        return value

    def record_worker(event: StatusEvent) -> None:
        worker_names.add(event.worker)

    async def main() -> None:
        known.set("caller")
        pipeline = Pipeline(
            [
                Stage("A", workers, [record_and_set, check_again], queue_capacity=1),
                Stage("B", 1, [same]),
            ]
        )
        pipeline.events.subscribe(StatusEvent, record_worker)
        async with no_leaked_tasks():
            results = await pipeline.run(range(9))
        assert results.values == list(range(9))
        assert new.get(None) is None
        assert known.get() == "caller"
        busy = pipeline.get_worker_metrics().values()
        assert sum(worker.items_processed for worker in busy if worker.stage == "A") == 9

    explore(main, backend=backend, schedule=schedule)
    assert seen == [(None, "caller")] * 9
    assert worker_names <= {None, "B-W0", *(f"A-W{number}" for number in range(workers))}


@row(26, CONTEXT)
async def test_a_variable_set_by_a_callback_is_not_visible_to_the_next_item() -> None:
    seen = []

    async def record(value: int) -> int:
        seen.append(new.get(None))
        return value

    async def set_variable(item_id: Any, value: Any, payload: Any) -> None:
        new.set(value)

    results = await Pipeline([Stage("A", 1, [record], on_success=set_variable)]).run(range(200))
    assert results.values == list(range(200))
    assert seen == [None] * 200


def hint_about(error: BaseException | None) -> str:
    (note,) = error.__notes__  # type: ignore[union-attr]
    assert isinstance(note, str)
    return note


@row(28, FOREIGN)
@pytest.mark.parametrize(
    "case",
    [
        ("trio", asyncio.sleep, 0.1),
        ("trio", asyncio.sleep, 0),
        ("asyncio", trio.sleep, 1),
        ("asyncio", trio.lowlevel.checkpoint),
        ("asyncio", trio.lowlevel.cancel_shielded_checkpoint),
    ],
)
def test_a_foreign_library_fails_its_item_with_a_hint(case: tuple[Any, ...]) -> None:
    backend, function, *args = case

    async def task(value: int) -> int:
        if value == 1:
            await function(*args)
        return value

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [task], task_attempts=1), Stage("B", 1, [same])])
        results = await pipeline.run(range(4))
        assert results.values == [0, 2, 3]
        (failed,) = results.failures
        other = "asyncio" if backend == "trio" else "trio"
        hint = hint_about(failed.exception)
        assert f"made for {other}" in hint
        assert f"runs on {backend}" in hint
        assert failed.error.endswith(hint)

    explore(main, backend=backend)


@row(28, FOREIGN)
async def test_other_errors_get_no_such_hint() -> None:
    async def task(value: int) -> int:
        raise [RuntimeError("broken"), TypeError("trio is a word"), ValueError("no")][value]

    results = await Pipeline([Stage("A", 1, [task], task_attempts=1)]).run(range(3))
    assert [failed.error for failed in results.failures] == ["broken", "trio is a word", "no"]
    assert not any(hasattr(failed.exception, "__notes__") for failed in results.failures)
