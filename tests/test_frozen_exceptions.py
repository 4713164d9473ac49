"""Exceptions whose classes are frozen come out as themselves, wherever they are raised."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from antflow import Pipeline, RetryPolicy, Stage, StatusTracker, TooManyFailuresError


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    code: int


@dataclasses.dataclass(frozen=True)
class FrozenFatalError(BaseException):
    code: int


@dataclasses.dataclass(frozen=True)
class ForeignLoopError(RuntimeError):
    """Looks like the error of a library for the other backend, to which a note is added."""

    code: int

    def __str__(self) -> str:
        return "no running event loop, must be called from async context"


@attrs.frozen
class AttrsError(Exception):
    code: int


ITEM_ERRORS = [FrozenError, ForeignLoopError, AttrsError]
ALL_ERRORS = [*ITEM_ERRORS, FrozenFatalError]


async def same(value: Any) -> Any:
    return value


def pipeline(task: Callable[..., Any] = same, **options: Any) -> Pipeline:
    return Pipeline([Stage("A", 1, [task], **options)])


@pytest.mark.parametrize("kind", ALL_ERRORS)
@pytest.mark.parametrize("way", ["block", "open", "stream"])
async def test_from_the_body_of_a_block(way: str, kind: type[BaseException]) -> None:
    async def leave() -> None:
        if way == "block":
            async with pipeline() as block:
                await block.feed([1])
                raise kind(1)
        if way == "open":
            async with pipeline().open([1]):
                raise kind(1)
        async with pipeline().stream([1]) as results:
            async for _ in results:
                raise kind(1)

    with pytest.raises(kind):
        await leave()


@pytest.mark.parametrize("kind", ALL_ERRORS)
@pytest.mark.parametrize(
    "way", ["run", "signals", "stream", "background stream", "feed", "feed in a block", "open"]
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_from_a_source(way: str, kind: type[BaseException], is_async: bool) -> None:
    def plain_source() -> Iterator[int]:
        yield 1
        raise kind(1)

    async def async_source() -> AsyncIterator[int]:
        yield 1
        raise kind(1)

    source: Any = async_source() if is_async else plain_source()

    async def read() -> None:
        if way == "run":
            await pipeline().run(source)
        if way == "signals":
            await pipeline().run(source, handle_signals=True)
        if way == "stream":
            async with pipeline().stream(source) as results:
                async for _ in results:
                    pass
        if way == "background stream":
            async for _ in pipeline().stream(source):
                pass
        if way == "feed":
            await pipeline().feed(source)
        if way == "feed in a block":
            async with pipeline() as block:
                await block.feed(source)
        async with pipeline().open(source):
            pass

    with pytest.raises(kind):
        await read()


@pytest.mark.parametrize("kind", ITEM_ERRORS)
@pytest.mark.parametrize("options", [{}, {"task_timeout": 60}])
@pytest.mark.parametrize("scope", ["task", "stage", None])
@pytest.mark.parametrize("in_thread", [False, True])
async def test_from_a_task(
    kind: type[Exception], options: dict[str, Any], scope: Any, in_thread: bool
) -> None:
    def fail(value: int) -> None:
        raise kind(value)

    async def fail_async(value: int) -> None:
        await anyio.lowlevel.checkpoint()
        raise kind(value)

    retry = None
    if scope is not None:
        retry = RetryPolicy(scope=scope, attempts=2, wait_initial=0, wait_max=0, wait_jitter=0)
    failing = pipeline(fail if in_thread else fail_async, retry=retry, **options)
    (failure,) = (await failing.run([1])).failures
    assert type(failure.exception) is kind
    assert failure.attempts == (1 if retry is None else 2)
    async with failing.stream([1]) as results:
        async for result in results:
            with pytest.raises(kind):
                result.value_or_raise()
    with pytest.raises(TooManyFailuresError) as caught:
        await failing.run([1], max_failures=0)
    assert caught.value.__cause__ is not None
    assert type(caught.value.__cause__.__cause__) is kind


@pytest.mark.parametrize("in_thread", [False, True])
async def test_from_a_task_when_it_ends_the_run(in_thread: bool) -> None:
    def fail(value: int) -> None:
        raise FrozenFatalError(value)

    async def fail_async(value: int) -> None:
        raise FrozenFatalError(value)

    failing = pipeline(fail if in_thread else fail_async)
    with pytest.raises(FrozenFatalError):
        await failing.run([1])
    with pytest.raises(FrozenFatalError):
        async with failing.open([1]):
            await anyio.sleep_forever()


@pytest.mark.parametrize("kind", ITEM_ERRORS)
async def test_from_hooks_and_callbacks(kind: type[Exception]) -> None:
    def fail(*arguments: Any) -> Any:
        raise kind(1)

    async def bad(value: int) -> None:
        raise ValueError(value)

    tracker = StatusTracker(on_status_change=fail)
    results = await Pipeline([Stage("A", 1, [same], on_success=fail)], status_tracker=tracker).run(
        [1]
    )
    assert results.values == [1]
    for scope in ("task", "stage"):
        policy = RetryPolicy(scope=scope, on=fail)  # type: ignore[arg-type]
        (failure,) = (await pipeline(bad, retry=policy).run([1])).failures
        assert type(failure.exception) is kind


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("error", [StopIteration(1), StopAsyncIteration(1), GeneratorExit()])
async def test_iteration_errors_of_tasks_are_what_they_were(error: Any, plain: bool) -> None:
    """StopIteration cannot leave a coroutine, in which Python makes it a RuntimeError."""

    def fail(value: int) -> None:
        raise error

    async def fail_async(value: int) -> None:
        raise error

    failing = pipeline(fail if plain else fail_async, retry=None)
    if isinstance(error, GeneratorExit):
        with pytest.raises(GeneratorExit):
            await failing.run([1])
        return
    (failure,) = (await failing.run([1])).failures
    expected = RuntimeError if isinstance(error, StopIteration) else StopAsyncIteration
    assert type(failure.exception) is expected
