"""`run(handle_signals=True)`: the first signal drains the run, the second cancels it."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from antflow import Pipeline, PipelineError, Stage, StageValidationError

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="event loops do not support signal handlers"
)


async def same(value: Any) -> Any:
    return value


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_drains_the_run(number: signal.Signals) -> None:
    read = 0

    async def task(value: int) -> int:
        if value == 5:
            signal.raise_signal(number)
        for _ in range(3):
            await checkpoint()
        return value

    def source() -> Any:
        nonlocal read
        for value in itertools.count():
            read += 1
            yield value

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    pipeline = Pipeline([Stage("A", 2, [task], queue_capacity=1), Stage("B", 1, [same])])
    results = await pipeline.run(source(), handle_signals=True)
    assert results.values == list(range(read))
    assert read >= 6
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


async def test_signals_are_handled_before_the_source_is_read() -> None:
    """A signal may arrive in the first step of a run."""

    def source() -> Any:
        signal.raise_signal(signal.SIGTERM)
        yield from itertools.count()

    for _ in range(20):  # The schedule decides which loop task is first.
        pipeline = Pipeline([Stage("A", 2, [same])])
        results = await pipeline.run(source(), handle_signals=True)
        assert results.values == list(range(len(results)))


async def test_the_second_signal_cancels_the_run() -> None:
    cancelled = []

    async def task(value: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(value)

    async def signals() -> None:
        while len(pipeline.get_worker_states()) > sum(
            state.status == "busy" for state in pipeline.get_worker_states().values()
        ):
            await checkpoint()
        signal.raise_signal(signal.SIGTERM)
        while not pipeline._run or pipeline._state.lifecycle.takes_input:
            await checkpoint()
        signal.raise_signal(signal.SIGINT)

    pipeline = Pipeline([Stage("A", 2, [task], queue_capacity=0)])
    async with anyio.create_task_group() as group:
        group.start_soon(signals)
        with pytest.raises(KeyboardInterrupt):
            await pipeline.run(itertools.count(), handle_signals=True)
    assert sorted(cancelled) == [0, 1]
    assert pipeline.failures == []


async def test_without_a_signal_nothing_changes() -> None:
    pipeline = Pipeline([Stage("A", 2, [same])])
    assert (await pipeline.run(range(9), handle_signals=True)).values == list(range(9))

    def source() -> Any:
        yield 1
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await pipeline.run(source(), handle_signals=True)


async def test_handle_signals_is_rejected_outside_of_the_main_thread(anyio_backend: Any) -> None:
    name, options = anyio_backend
    errors: list[str] = []

    async def main() -> None:
        with pytest.raises(PipelineError) as raised:
            await Pipeline([Stage("A", 2, [same])]).run([1], handle_signals=True)
        errors.append(str(raised.value))

    thread = threading.Thread(
        target=lambda: anyio.run(main, backend=name, backend_options=options), name="other"
    )
    thread.start()
    thread.join(30)
    (error,) = errors
    assert "in the main thread only" in error
    assert "'other'" in error


async def test_handle_signals_must_be_a_bool() -> None:
    with pytest.raises(StageValidationError, match="handle_signals must be True or False, got 1"):
        await Pipeline([Stage("A", 2, [same])]).run([1], handle_signals=1)  # type: ignore[arg-type]


async def test_a_rejected_run_is_not_the_newest() -> None:
    pipeline = Pipeline([Stage("A", 2, [same])])
    await pipeline.run([1])

    def other() -> None:
        with pytest.raises(PipelineError):
            anyio.run(lambda: pipeline.run([2], handle_signals=True))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(30)
    await pipeline.join()
    await pipeline.shutdown()
    assert pipeline.results.values == [1]


async def test_a_shutdown_does_not_count_as_a_signal() -> None:
    """The first signal does not cancel the run, although it is draining already."""

    async def task(value: int) -> int:
        if value == 3:
            await pipeline.shutdown()
            signal.raise_signal(signal.SIGINT)
        for _ in range(5):
            await checkpoint()
        return value

    pipeline = Pipeline([Stage("A", 1, [task])])
    assert (await pipeline.run(range(4), handle_signals=True)).values == [0, 1, 2, 3]


async def test_earlier_signal_handlers_are_restored() -> None:
    def handler(*args: Any) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGTERM, handler)
    try:
        await Pipeline([Stage("A", 2, [same])]).run([1], handle_signals=True)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
