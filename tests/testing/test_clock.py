"""Virtual time: sleeping takes no real time, and threads take no virtual time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from antflow import Pipeline, RetryPolicy, Stage
from antflow.testing import VirtualTimeLoop, backends, virtual_clock

pytestmark = pytest.mark.virtual_time


async def test_an_hour_of_back_off_takes_no_real_time() -> None:
    real = time.monotonic()
    attempts = []

    async def flaky(value: int) -> int:
        attempts.append(anyio.current_time())
        if len(attempts) < 3:
            raise ConnectionError
        return value

    policy = RetryPolicy(wait_initial=3600, wait_max=3600, wait_jitter=0)
    began = anyio.current_time()
    results = await Pipeline([Stage("A", 1, [flaky], policy)]).run([1])
    assert results.values == [1]
    assert [at - began for at in attempts] == [0, 3600, 7200]
    assert time.monotonic() - real < 3000


async def test_the_clock_reaches_every_timer() -> None:
    """Rounding errors never stop the clock just before a timer."""
    for seconds in (1e-9, 0.1, 1 / 3, 1e6, 86401, 1e9, 1e-9, 0.1):
        began = anyio.current_time()
        await anyio.sleep(seconds)
        assert anyio.current_time() >= began + seconds


async def test_sleepers_wake_in_order_of_their_deadlines() -> None:
    woken = []

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as group:
        for seconds in (5, 1, 3600, 2, 0.5):
            group.start_soon(sleeper, seconds)
    assert woken == [0.5, 1, 2, 5, 3600]


async def test_time_stands_still_while_a_thread_runs() -> None:
    release = threading.Event()
    began = anyio.current_time()

    async def wait_for_thread() -> None:
        await anyio.to_thread.run_sync(release.wait, 30)
        assert release.is_set()
        assert anyio.current_time() - began == 0

    with anyio.fail_after(3600):
        async with anyio.create_task_group() as group:
            group.start_soon(wait_for_thread)
            await anyio.lowlevel.checkpoint()
            # Set by another thread after some real time.
            threading.Timer(0.002, release.set).start()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_without_a_timer_the_loop_waits_for_an_event_from_outside(backend: str) -> None:
    async def main() -> None:
        event = anyio.Event()
        wake: Callable[[], Any]
        if backend == "trio":
            import trio

            token = trio.lowlevel.current_trio_token()
            wake = lambda: token.run_sync_soon(event.set)  # noqa: E731
        else:
            import asyncio

            loop = asyncio.get_running_loop()
            wake = lambda: loop.call_soon_threadsafe(event.set)  # noqa: E731
        threading.Timer(0.005, wake).start()
        await event.wait()

    options: dict[str, Any] = {"loop_factory": VirtualTimeLoop}
    if backend == "trio":
        options = {"clock": virtual_clock()}
    anyio.run(main, backend=backend, backend_options=options)


def test_on_trio_the_clock_polls_for_an_event_from_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    polled = threading.Event()

    async def main() -> None:
        arrived = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def outside() -> None:
            polled.wait()
            token.run_sync_soon(arrived.set)

        # Not a worker thread of the backend, since the clock would wait for that one.
        thread = threading.Thread(target=outside)
        thread.start()
        await arrived.wait()
        thread.join()

    monkeypatch.setattr(
        "antflow.testing._exploration.clock.time.sleep", lambda seconds: polled.set()
    )
    trio.run(main, clock=virtual_clock())
    assert polled.is_set()


def test_backends_are_parameters_for_a_fixture() -> None:
    parameters = backends()
    assert [parameter.id for parameter in parameters] == ["asyncio", "trio"]
    assert [parameter.values[0][0] for parameter in parameters] == ["asyncio", "trio"]
