"""Calls from another thread or loop are refused with the call to write instead; see also faults."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import current_token

from antflow import Pipeline, PipelineError, Stage
from antflow._backend.context import current_host
from antflow._backend.loops import check_loop, current_loop


async def same(value: Any) -> Any:
    return value


async def raised_elsewhere(call: Any, backend: str) -> str:
    """Await *call* in a loop of its own, and return what it raises."""

    async def main() -> str:
        with pytest.raises(PipelineError) as raised:
            await call()
        return str(raised.value)

    return await anyio.to_thread.run_sync(partial(anyio.run, main, backend=backend))


@pytest.mark.parametrize("other", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", ["block", "open"])
async def test_another_loop_cannot_wait_for_a_run(
    kind: str, other: str, anyio_backend_name: str
) -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    async with pipeline if kind == "block" else pipeline.open() as run:
        await run.feed([1])
        for name, call in (
            ("feed", lambda: run.feed([2])),
            ("join", run.join),
            ("shutdown", run.shutdown),
        ):
            message = await raised_elsewhere(call, other)
            assert message.startswith(f"{name}() was called in thread '")
            assert f"anyio.from_thread.run(pipeline.{name}" in message
            if anyio_backend_name == "asyncio":
                assert f"asyncio.run_coroutine_threadsafe(pipeline.{name}(" in message
            else:
                assert f"trio.from_thread.run(pipeline.{name}" in message
    assert run.results.values == [1]


async def test_the_recommended_calls_work() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    async with pipeline:
        await pipeline.start()
        token = current_token()

        def thread() -> int:
            fed = anyio.from_thread.run(pipeline.feed, [1, 2], token=token)
            anyio.from_thread.run(pipeline.join, token=token)
            anyio.from_thread.run(pipeline.shutdown, token=token)
            return fed

        assert await anyio.to_thread.run_sync(thread) == 2
    assert pipeline.results.values == [1, 2]


async def test_a_run_and_a_stream_cannot_be_stopped_from_another_loop() -> None:
    errors = []

    async def task(value: int) -> int:
        errors.append(await raised_elsewhere(pipeline.shutdown, "asyncio"))
        return value

    pipeline = Pipeline([Stage("A", 1, [task])])
    assert (await pipeline.run([1])).values == [1]
    stream = pipeline.stream([1])
    async with stream:
        assert [result.value async for result in stream] == [1]
    assert ["anyio.from_thread.run" in error for error in errors] == [True, True]


async def test_what_has_ended_can_be_asked_from_anywhere() -> None:
    pipeline = Pipeline([Stage("A", 1, [same])])
    await pipeline.run([1])

    async def main() -> None:
        await pipeline.join()
        await pipeline.shutdown()

    await anyio.to_thread.run_sync(anyio.run, main)


async def test_without_any_loop_it_is_refused_as_well() -> None:
    host = current_host()
    check_loop(host, "feed")
    check_loop(None, "feed")
    with pytest.raises(PipelineError, match="feed"):
        await anyio.to_thread.run_sync(check_loop, host, "feed")


def test_a_loop_that_has_ended_calls_nothing(anyio_backend: Any) -> None:
    name, options = anyio_backend

    async def main() -> Any:
        return current_loop().call_soon

    call_soon = anyio.run(main, backend=name, backend_options=options)
    assert not call_soon(lambda: None)


def test_a_loop_that_pauses_calls_later() -> None:
    called = []

    async def main() -> Any:
        return current_loop().call_soon

    loop = asyncio.new_event_loop()
    try:
        call_soon = loop.run_until_complete(main())
        assert not call_soon(lambda: called.append(1))
        loop.run_until_complete(asyncio.sleep(0))
        assert called == [1]
    finally:
        loop.close()
