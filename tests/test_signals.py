"""`handle_signals=True`: the first signal drains, the second cancels; no signal is lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from antflow import Pipeline, PipelineError, Stage, StageValidationError
from antflow._run import signals
from antflow._run.signals import handling_signals
from antflow.testing import explore, interrupt, schedules

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

    async def send() -> None:
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
        group.start_soon(send)
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


class Heard:
    """A handler of the process, for both signals, that counts."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __call__(self, number: int, frame: Any) -> None:
        self.numbers.append(number)


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    before = {number: signal.signal(number, handler) for number in NUMBERS}
    yield handler
    installed = [signal.getsignal(number) for number in NUMBERS]
    for number, previous in before.items():
        signal.signal(number, previous)
    assert installed == [handler, handler]
    assert not signals._receivers
    assert not signals._previous


NUMBERS = (signal.SIGINT, signal.SIGTERM)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await checkpoint()


class Runs:
    """Endless runs that handle signals, and how each ended."""

    def __init__(self) -> None:
        self.ends: dict[str, str] = {}
        self.gate = anyio.Event()

    async def run(self, name: str, *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        async def task(value: int) -> int:
            if value == 0:
                task_status.started(pipeline)
            await self.gate.wait()
            return value

        pipeline = Pipeline([Stage("A", 1, [task])], handle_signals=True)
        try:
            results = await pipeline.run(itertools.count())
            self.ends[name] = "drained" if results else "empty"
        except KeyboardInterrupt:
            self.ends[name] = "interrupted"


def draining(*pipelines: Pipeline) -> bool:
    return not any(pipeline._state.lifecycle.takes_input for pipeline in pipelines)


async def test_overlapping_runs_share_the_first_signal_and_the_next_reaches_the_process(
    heard: Heard,
) -> None:
    runs = Runs()
    async with anyio.create_task_group() as group:
        pipelines = [await group.start(runs.run, name) for name in "abc"]
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: draining(*pipelines))
        runs.gate.set()
    assert runs.ends == dict.fromkeys("abc", "drained")
    assert heard.numbers == []
    signal.raise_signal(signal.SIGTERM)
    assert heard.numbers == [signal.SIGTERM]


async def test_the_second_signal_also_ends_runs_that_joined_after_the_first(heard: Heard) -> None:
    runs = Runs()
    async with anyio.create_task_group() as group:
        first = await group.start(runs.run, "first")
        signal.raise_signal(signal.SIGINT)
        await until(lambda: draining(first))
        late = await group.start(runs.run, "late")
        assert not draining(late)
        signal.raise_signal(signal.SIGINT)
    assert runs.ends == {"first": "interrupted", "late": "interrupted"}


async def test_a_signal_is_a_first_one_again_when_those_who_had_the_first_have_ended(
    heard: Heard,
) -> None:
    """Otherwise every signal after the first would cancel runs that always overlap."""
    runs = Runs()
    async with anyio.create_task_group() as group:
        first = await group.start(runs.run, "first")
        signal.raise_signal(signal.SIGINT)
        await until(lambda: draining(first))
        late = await group.start(runs.run, "late")
        runs.gate.set()
        await until(lambda: "first" in runs.ends)
        signal.raise_signal(signal.SIGINT)
        await until(lambda: draining(late))
    assert runs.ends == {"first": "drained", "late": "drained"}


async def test_the_third_signal_has_the_effect_that_it_has_without_antflow(heard: Heard) -> None:
    """A task that does not end must not keep the process from reacting to signals."""
    end = anyio.Event()

    async def task(value: int) -> None:
        with anyio.CancelScope(shield=True):
            await end.wait()

    pipeline = Pipeline([Stage("A", 1, [task])])
    async with anyio.create_task_group() as group:

        async def run() -> None:
            with pytest.raises(KeyboardInterrupt):
                await pipeline.run(itertools.count(), handle_signals=True)

        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        await until(lambda: heard.numbers)
        signal.raise_signal(signal.SIGINT)
        assert heard.numbers == [signal.SIGTERM, signal.SIGINT]
        # A run that begins now has signals of its own; but those before are still there.
        runs = Runs()
        await group.start(runs.run, "late")
        signal.raise_signal(signal.SIGINT)
        await until(lambda: runs.ends)
        assert runs.ends == {"late": "interrupted"}
        end.set()
    assert heard.numbers == [signal.SIGTERM, signal.SIGINT]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["enter", "leave", "signal", "yield"]), st.integers(0, 5))
    )
)
async def test_every_signal_is_heard_whatever_overlaps(steps: list[tuple[str, int]]) -> None:
    """In any order of runs and signals: by a run, or by the process."""
    handler = Heard()
    before = {number: signal.signal(number, handler) for number in NUMBERS}
    log: list[str] = []
    opened: list[tuple[Any, list[str]]] = []
    sent = 0
    try:
        for step, index in [*steps, *[("leave", 0)] * len(steps)]:
            if step == "enter":
                own: list[str] = []
                block = handling_signals(
                    lambda own=own: (own.append("drain"), log.append("drain")),
                    lambda own=own: (own.append("interrupt"), log.append("interrupt")),
                )
                block.__enter__()
                opened.append((block, own))
            elif step == "leave" and opened:
                block, own = opened.pop(index % len(opened))
                block.__exit__(None, None, None)
                assert own in ([], ["drain"], ["interrupt"], ["drain", "interrupt"])
            elif step == "signal":
                known = len(log) + len(handler.numbers)
                signal.raise_signal(NUMBERS[index % 2])
                sent += 1
                await anyio.wait_all_tasks_blocked()
                assert len(log) + len(handler.numbers) > known
            else:
                await checkpoint()
        assert [signal.getsignal(number) for number in NUMBERS] == [handler, handler]
        assert len(handler.numbers) <= sent
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@given(ends=st.permutations(range(3)), numbers=st.lists(st.sampled_from(NUMBERS), max_size=4))
async def test_signals_that_come_at_once_are_heard_before_the_runs_end(
    ends: list[int], numbers: list[signal.Signals]
) -> None:
    """The loop has no time to deliver them."""
    handler = Heard()
    before = {number: signal.signal(number, handler) for number in NUMBERS}
    log: list[str] = []
    try:
        blocks = [
            handling_signals(lambda: log.append("drain"), lambda: log.append("interrupt"))
            for _ in range(3)
        ]
        for block in blocks:
            block.__enter__()
        for number in numbers:
            signal.raise_signal(number)
        for index in ends:
            blocks[index].__exit__(None, None, None)
    finally:
        installed = [signal.signal(number, previous) for number, previous in before.items()]
    assert installed == [handler, handler]
    assert log == ["drain"] * 3 * bool(numbers) + ["interrupt"] * 3 * (len(numbers) > 1)
    # What came too late for the runs: a signal that is pending twice is one signal.
    assert handler.numbers == list(dict.fromkeys(numbers[2:]))


async def overlapping_runs() -> list[str]:
    """Two runs that handle signals, and a third that starts when the first has ended."""
    ends: list[str] = []

    async def run(count: int) -> None:
        pipeline = Pipeline([Stage("A", 2, [same], queue_capacity=0)], handle_signals=True)
        try:
            results = await pipeline.run(range(count))
            assert results.values == list(range(len(results)))
            ends.append("all" if len(results) == count else "drained")
        except KeyboardInterrupt:
            assert pipeline.get_stats().items_processed < count
            ends.append("interrupted")

    async def twice() -> None:
        await run(3)
        await run(3)

    async with anyio.create_task_group() as group:
        group.start_soon(twice)
        group.start_soon(run, 5)
    return ends


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(
    schedule=schedules(),
    steps=st.lists(st.integers(1, 120), min_size=1, max_size=3, unique=True),
)
def test_signals_at_any_step_are_heard_under_any_schedule(
    backend: str, schedule: Any, steps: list[int]
) -> None:
    sent = 0
    handler = Heard()

    def send(exploration: Any) -> None:
        nonlocal sent
        sent += 1
        interrupt(exploration)

    before = {number: signal.signal(number, handler) for number in NUMBERS}
    try:
        ends = explore(
            overlapping_runs,
            backend=backend,
            schedule=schedule,
            hooks=dict.fromkeys(steps, send),
        )
    finally:
        installed = [signal.signal(number, previous) for number, previous in before.items()]
    assert installed == [handler, handler]
    assert not signals._receivers
    assert ends is not None
    assert len(ends) == 3
    # Only a second signal interrupts, and nothing ends early without a signal.
    assert "interrupted" not in ends or sent >= 2
    assert sent or ends == ["all"] * 3
    assert len(handler.numbers) <= sent


async def test_a_handler_that_was_set_meanwhile_stays(heard: Heard) -> None:
    other = Heard()
    with handling_signals(lambda: None, lambda: None):
        ours = signal.signal(signal.SIGTERM, other)
    assert signal.getsignal(signal.SIGTERM) is other
    # Whoever set it restores what was there before: our handler, which has no run any more.
    signal.signal(signal.SIGINT, ours)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, heard)
    signal.signal(signal.SIGTERM, heard)


class TestTheLoopsOwnHandlers:
    """What an application has set with the means of its loop."""

    async def test_add_signal_handler_is_as_before(
        self, anyio_backend: Any, anyio_backend_name: str
    ) -> None:
        if anyio_backend_name == "trio":
            pytest.skip("of asyncio and uvloop")
        loop = asyncio.get_running_loop()
        calls: list[int] = []
        loop.add_signal_handler(signal.SIGTERM, calls.append, 1)
        try:
            await Pipeline([Stage("A", 2, [same])]).run(range(9), handle_signals=True)
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: len(calls) == 1)

            async def task(value: int) -> int:
                if value == 3:
                    signal.raise_signal(signal.SIGTERM)
                    await until(lambda: len(calls) == 2)
                return value

            results = await Pipeline([Stage("A", 1, [task])]).run(
                itertools.count(), handle_signals=True
            )
            assert len(results) >= 4
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    async def test_a_receiver_of_anyio_is_as_before(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM) as numbers:
            await Pipeline([Stage("A", 2, [same])]).run(range(9), handle_signals=True)
            signal.raise_signal(signal.SIGTERM)
            assert await anext(numbers) == signal.SIGTERM


async def test_a_signal_from_outside_wakes_the_loop(heard: Heard) -> None:
    async def task(value: int) -> int:
        if value == 0:
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()
            await stopped.wait()
        return value

    async def source() -> Any:
        try:
            yield 0
            await anyio.sleep_forever()
        finally:
            stopped.set()

    stopped = anyio.Event()
    results = await Pipeline([Stage("A", 1, [task])]).run(source(), handle_signals=True)
    assert results.values == [0]


def test_a_signal_for_a_loop_that_has_stopped_reaches_the_process(heard: Heard) -> None:
    async def main() -> None:
        await Pipeline([Stage("A", 1, [forever])]).run([1], handle_signals=True)

    async def wait() -> None:
        await until(lambda: signals._receivers)

    loop = asyncio.new_event_loop()
    try:
        running = loop.create_task(main())
        loop.run_until_complete(wait())
        signal.raise_signal(signal.SIGTERM)
        assert heard.numbers == [signal.SIGTERM]
        assert not signals._receivers
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(running)
    finally:
        loop.close()


async def forever(value: Any) -> Any:
    await anyio.sleep_forever()


async def counting() -> Any:
    for value in itertools.count():
        yield value
        await checkpoint()


class TestStreams:
    """`stream(handle_signals=True)`."""

    @pytest.mark.parametrize("in_block", [True, False])
    async def test_the_first_signal_ends_the_loop_after_what_was_read(
        self, heard: Heard, in_block: bool
    ) -> None:
        values = []
        pipeline = Pipeline([Stage("A", 2, [same])])
        stream = pipeline.stream(counting(), handle_signals=True, ordered=True)
        if in_block:
            async with stream:
                async for result in stream:
                    values.append(result.value)
                    if result.value == 5:
                        signal.raise_signal(signal.SIGTERM)
        else:
            async for result in stream:
                values.append(result.value)
                if result.value == 5:
                    signal.raise_signal(signal.SIGTERM)
        assert values == list(range(len(values)))
        assert len(values) == pipeline.get_stats().items_processed > 5
        assert heard.numbers == []

    @pytest.mark.parametrize("in_block", [True, False])
    async def test_the_second_signal_ends_it_at_once(self, heard: Heard, in_block: bool) -> None:
        pipeline = Pipeline([Stage("A", 2, [forever])])
        stream = pipeline.stream(counting(), handle_signals=True)

        async def send() -> None:
            await until(lambda: signals._receivers)
            await anyio.wait_all_tasks_blocked()
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012
                if in_block:
                    async with stream:
                        await anext(stream)
                else:
                    await anext(stream)

    async def test_the_second_signal_also_ends_a_body_that_does_not_iterate(
        self, heard: Heard
    ) -> None:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            async with Pipeline([Stage("A", 2, [same])]).stream(counting(), handle_signals=True):
                for _ in range(2):
                    signal.raise_signal(signal.SIGINT)
                await anyio.sleep_forever()


def open_block(kind: str, task: Any) -> Any:
    if kind == "open":
        return Pipeline([Stage("A", 1, [task])]).open(handle_signals=True)
    return Pipeline([Stage("A", 1, [task])], handle_signals=True)


@pytest.mark.parametrize("kind", ["open", "block"])
class TestLiveRuns:
    """`open(handle_signals=True)`, and a block of `Pipeline(handle_signals=True)`."""

    async def test_the_first_signal_ends_the_body_and_finishes_what_was_fed(
        self, heard: Heard, kind: str
    ) -> None:
        fed = []

        async def task(value: int) -> int:
            if value == 3:
                signal.raise_signal(signal.SIGTERM)
            for _ in range(5):
                await checkpoint()
            return value

        async with open_block(kind, task) as run:
            for value in itertools.count():
                await run.feed([value])
                fed.append(value)
        assert len(fed) > 3
        assert run.results.values[: len(fed)] == fed
        assert run.get_stats().items_in_flight == 0

    async def test_a_block_without_a_run_ends(self, heard: Heard, kind: str) -> None:
        async with open_block(kind, same):
            signal.raise_signal(signal.SIGTERM)
            await anyio.sleep_forever()

    async def test_two_signals_at_once_end_a_block_without_a_run(
        self, heard: Heard, kind: str
    ) -> None:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            async with open_block(kind, same):
                for _ in range(2):
                    signal.raise_signal(signal.SIGTERM)
                await anyio.sleep_forever()

    async def test_the_second_signal_ends_everything(self, heard: Heard, kind: str) -> None:
        block = open_block(kind, forever)
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            async with block as run:
                await run.feed([1, 2])
                await anyio.wait_all_tasks_blocked()
                for _ in range(2):
                    signal.raise_signal(signal.SIGTERM)
                await anyio.sleep_forever()
        assert run.results.values == []

    async def test_the_second_signal_ends_what_the_block_waits_for(
        self, heard: Heard, kind: str
    ) -> None:
        async def task(value: int) -> None:
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
            await anyio.sleep_forever()

        with pytest.raises(KeyboardInterrupt):
            async with open_block(kind, task) as run:
                await run.feed([1])

    async def test_a_second_signal_after_everything_is_finished_is_no_error(
        self, heard: Heard, kind: str
    ) -> None:
        async def task(value: int) -> int:
            return value

        block = open_block(kind, task)
        async with block as run:
            await run.feed([1])
            await run.join()
            host = block._host if kind == "open" else block._block.host
            host.run.completion.ends_when_idle = False
            host.is_leaving = True
            host._interrupt()
        assert run.results.values == [1]

    async def test_an_error_of_the_body_comes_out_as_itself(self, heard: Heard, kind: str) -> None:
        with pytest.raises(OSError, match="disk"):
            async with open_block(kind, same):
                raise OSError("disk")

    async def test_an_error_beside_the_cancellation_comes_out(
        self, heard: Heard, kind: str
    ) -> None:
        async def wait_and_fail() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise OSError("disk")

        with pytest.raises(BaseException) as raised:  # noqa: PT011, PT012
            async with open_block(kind, same), anyio.create_task_group() as group:
                group.start_soon(wait_and_fail)
                await anyio.wait_all_tasks_blocked()
                signal.raise_signal(signal.SIGTERM)
                await anyio.sleep_forever()
        assert [type(error) for error in raised.value.exceptions] == [OSError]  # type: ignore[attr-defined]

    async def test_only_in_the_main_thread(self, kind: str) -> None:
        errors = []

        async def main() -> None:
            with pytest.raises(PipelineError, match="handle_signals=True works in the main") as one:
                await open_block(kind, same).__aenter__()
            errors.append(one)
            with pytest.raises(PipelineError, match="handle_signals=True works in the main") as two:
                await anext(Pipeline([Stage("A", 1, [same])]).stream([1], handle_signals=True))
            errors.append(two)
            stream = Pipeline([Stage("A", 1, [same])]).stream([1], handle_signals=True)
            with pytest.raises(PipelineError, match="handle_signals=True works in the main"):
                await stream.__aenter__()
            await stream.aclose()

        await anyio.to_thread.run_sync(anyio.run, main)
        assert len(errors) == 2


async def test_the_switch_of_the_pipeline_is_the_default() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])], handle_signals=True)

    async def check() -> Any:
        yield bool(signals._receivers)

    assert (await pipeline.run(check())).values == [True]
    assert (await pipeline.run(check(), handle_signals=False)).values == [False]
    await pipeline.feed(check())
    assert pipeline.results.values == [True]
    with pytest.raises(StageValidationError, match="handle_signals must be True or False, got 1"):
        Pipeline([Stage("A", 1, [same])], handle_signals=1)  # type: ignore[arg-type]
    for method in (pipeline.stream, pipeline.open):
        with pytest.raises(StageValidationError, match="handle_signals must be True or False"):
            method([1], handle_signals="yes")  # type: ignore[operator]
