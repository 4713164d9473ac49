"""Rows 20 to 22: strange ids, strange values, strange exceptions."""

from __future__ import annotations

import gc
import pickle
import sys
import weakref
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import attrs
import pytest
import stamina
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st

from antflow import (
    Item,
    Pipeline,
    PipelineResult,
    RetryPolicy,
    Stage,
    StatusTracker,
    TooManyFailuresError,
)
from antflow.testing import Decision, explore
from faults.kit import explored, no_task_left, row

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

IDS = "Duplicate, None, unhashable, huge ids and those with newlines are kept apart by number"
VALUES = "Any value goes through as it is: None, exceptions, dicts, 10 MB, objects that refuse all"
ERRORS = "Any exception is a failure like others: unreadable, huge, cyclic, not to be pickled"

known: ContextVar[Any] = ContextVar("known")
scopes = st.sampled_from(["task", "stage"])
workers = st.integers(1, 3)


def refuse(*args: object) -> Any:
    raise RuntimeError("leave me alone")


class Hostile:
    """Refuses whatever Python may ask of an object."""

    __eq__ = __hash__ = __bool__ = __len__ = __repr__ = __iter__ = refuse
    __class__ = property(refuse)  # type: ignore[assignment]


class OddError(Exception):
    """What the tasks here raise on purpose."""


async def same(value: Any) -> Any:
    await checkpoint()
    return value


def policy(scope: Any, attempts: int = 2) -> RetryPolicy:
    return RetryPolicy(scope=scope, attempts=attempts, wait_initial=1, wait_jitter=0)


# By a name for each, since hypothesis must tell what it drew.
LONG = "x" * 100_000
STRANGE_IDS: dict[str, Any] = {
    "None": None,
    "one": 1,
    "true": True,
    "nan": float("nan"),
    "text": "a",
    "newlines": "a\nb\r\n\tc",
    "huge": LONG,
    "list": ["a"],
    "dict": {"a": [1]},
    "long list, first": [LONG, 1],
    "long list, second": [LONG, 2],
    "hostile, first": Hostile(),
    "hostile, second": Hostile(),
    "exception": OddError("an id"),
    "type": RuntimeError,
}


@row(20, IDS)
@explored(
    2,
    names=st.lists(st.sampled_from(list(STRANGE_IDS)), max_size=7),
    scope=scopes,
    workers=workers,
    tracked=st.booleans(),
    ordered=st.none() | st.booleans(),
)
def test_ids_of_all_kinds_are_kept_apart_by_number(
    backend: str,
    schedule: list[Decision],
    names: list[str],
    scope: str,
    workers: int,
    tracked: bool,
    ordered: bool | None,
) -> None:
    """Each third one fails, and each second of the others is skipped in the last stage."""

    async def refuse_some(value: int) -> int:
        await checkpoint()
        if value % 3 == 1:
            raise OddError
        return value

    told: list[tuple[Any, Any, Any]] = []

    def tell(item_id: Any, value: Any, payload: dict[str, Any]) -> None:
        told.append((item_id, payload["id"], payload["metadata"]["number"]))

    ids = [STRANGE_IDS[name] for name in names]
    tracker = StatusTracker(on_success=tell, on_failure=tell) if tracked else None
    pipeline = Pipeline(
        [
            Stage("A", workers, [refuse_some], policy(scope), queue_capacity=1),
            Stage("B", workers, [same], skip_if=lambda value: value % 2),
        ],
        status_tracker=tracker,
    )
    items = [
        {"id": item_id, "value": number, "number": number}
        if number % 2
        else Item(number, id=item_id, metadata={"number": number})
        for number, item_id in enumerate(ids)
    ]
    good = [number for number in range(len(ids)) if number % 3 != 1]

    async def main() -> None:
        outcomes: list[Any] = []
        async with no_task_left():
            if ordered is None:
                results = await pipeline.run(items)
                assert [result.sequence_id for result in results] == good
                outcomes += [*results, *results.failures]
            else:
                async with pipeline.stream(items, ordered=ordered) as taken:
                    outcomes += [result async for result in taken]
                if ordered:
                    assert [outcome.sequence_id for outcome in outcomes] == list(range(len(ids)))
        assert sorted(outcome.sequence_id for outcome in outcomes) == list(range(len(ids)))
        for outcome in outcomes:
            number = outcome.sequence_id
            succeeded = isinstance(outcome, PipelineResult) and outcome.is_success
            item_id = outcome.id if isinstance(outcome, PipelineResult) else outcome.item_id
            assert item_id is ids[number]
            assert (outcome.value, outcome.metadata) == (number, {"number": number})
            assert succeeded is (number in good)

    explore(main, backend=backend, schedule=schedule)
    if tracker is not None:
        assert tracker.callback_errors == 0
        assert sorted(number for _, _, number in told) == list(range(len(ids)))
        assert all(given is payload is ids[number] for given, payload, number in told)
        # Equal ids share an entry, as 1 and True do; a list of its own is another, as is NaN.
        kinds = {"one" if name == "true" else name for name in names}
        assert len(tracker.get_tracked_ids()) == sum(tracker.get_stats().values()) == len(kinds)
        assert all(tracker.get_status(item_id) is not None for item_id in ids)


@row(20, IDS)
async def test_a_tracker_tells_all_of_them_apart() -> None:
    tracker = StatusTracker()
    pipeline = Pipeline([Stage("A", 2, [same])], status_tracker=tracker)
    ids = [STRANGE_IDS[name] for name in STRANGE_IDS if name != "true"]
    await pipeline.run(Item(number, id=item_id) for number, item_id in enumerate(ids))
    assert {id(each) for each in tracker.get_tracked_ids()} == {id(item_id) for item_id in ids}
    for item_id in ids:
        status = tracker.get_status(item_id)
        assert status is not None
        assert status.item_id is item_id
        assert [event.item_id is item_id for event in tracker.get_history(item_id)] == [True] * 3


@row(20, IDS)
async def test_what_is_said_of_a_strange_id_fits_on_a_line() -> None:
    async def fail(value: Any) -> None:
        raise OddError("no")

    ids = ["a\nb", "x" * 10_000_000, ["y" * 10_000_000], None, Hostile()]
    pipeline = Pipeline([Stage("A", 2, [fail], task_attempts=1)], status_tracker=StatusTracker())
    results = await pipeline.run(Item(number, id=each) for number, each in enumerate(ids))
    for failed in results.failures:
        message = str(failed.as_exception())
        assert "\n" not in message
        assert len(message) < 200
        assert failed.as_exception().item_id is ids[failed.value]
    with pytest.raises(TooManyFailuresError) as caught:
        await pipeline.run([Item(1, id="a\nb" * 1000)], max_failures=0)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


STRANGE_VALUES: dict[str, Any] = {
    "None": None,
    "hostile": Hostile(),
    "exception": OddError("a value"),
    "exception class": OddError,
    "StopIteration": StopIteration(1),
    "GeneratorExit": GeneratorExit(),
    "dict": {"no": "id"},
    "dict with id": {"id": "x"},
    "dict with a hostile": {"a": Hostile()},
    "empty dict": {},
    "10 MB": "x" * 10_000_000,
    "10 MB of bytes": bytes(10_000_000),
    "item": Item(1, id="a value"),
    "result": PipelineResult(1, 2, 3),
    "function": same,
    "NotImplemented": NotImplemented,
    "list": [],
    "nan": float("nan"),
}


@row(21, VALUES)
@explored(
    2,
    names=st.lists(st.sampled_from(list(STRANGE_VALUES)), min_size=1, max_size=6),
    scope=scopes,
    tries=st.integers(1, 2),
    plain=st.booleans(),
    how=st.sampled_from(["run", "stream", "ordered", "feed"]),
)
def test_any_value_goes_through_as_it_is(
    backend: str,
    schedule: list[Decision],
    names: list[str],
    scope: str,
    tries: int,
    plain: bool,
    how: str,
) -> None:
    """It is that very object which comes to tasks, callbacks and results; failed tries included."""
    values = [STRANGE_VALUES[name] for name in names]
    tried: list[int] = []
    told: list[Any] = []

    async def flaky(pair: tuple[int, Any]) -> Any:
        number, value = pair
        await checkpoint()
        tried.append(number)
        if tried.count(number) < tries:
            raise OddError(number)
        return value

    async def set_and_pass(value: Any) -> Any:
        # Also what a task sets in the context, which the worker sets back.
        assert known.get() is caller
        known.set(value)
        await checkpoint()
        return value

    def tell(item_id: Any, value: Any, payload: dict[str, Any]) -> Any:
        told.append((value, payload["value"]))
        return value if plain else None

    caller = Hostile()
    tracker = StatusTracker(on_success=tell)
    pipeline = Pipeline(
        [
            Stage("A", 2, [flaky], policy(scope), queue_capacity=1),
            Stage("B", 2, [set_and_pass], skip_if=lambda value: False, on_success=tell),
        ],
        status_tracker=tracker,
    )
    items = [Item((number, value)) for number, value in enumerate(values)]

    async def main() -> None:
        known.set(caller)
        outcomes: list[PipelineResult] = []
        async with no_task_left():
            if how == "run":
                outcomes += await pipeline.run(items)
            elif how == "feed":
                async with pipeline:
                    await pipeline.feed(items)
                outcomes += pipeline.results
            else:
                async with pipeline.stream(items, ordered=how == "ordered") as results:
                    outcomes += [result async for result in results]
        if how == "stream":
            outcomes.sort(key=lambda outcome: outcome.sequence_id)
        assert [outcome.sequence_id for outcome in outcomes] == list(range(len(values)))
        for outcome, value in zip(outcomes, values):
            assert outcome.value is value
            assert outcome.is_success
        assert pipeline.failures == []
        assert known.get() is caller

    explore(main, backend=backend, schedule=schedule)
    assert len(tried) == tries * len(values)
    assert len(told) == 2 * len(values)
    assert all(value is again for value, again in told)
    assert {id(value) for value, _ in told} == {id(value) for value in values}
    # What a callback returns is nobody's business, unless it is an awaitable.
    assert tracker.callback_errors == 0


@row(21, VALUES)
async def test_values_that_come_bare_go_through_as_they_are() -> None:
    """As a source gives them: a dict with an id is unwrapped, whatever else is in it."""
    strange = Hostile()

    class Key:
        __eq__ = refuse

        def __hash__(self) -> int:
            return 1

    key = Key()
    inputs = [
        *STRANGE_VALUES.values(),
        {"id": strange, "value": strange, key: strange},
        {"id": strange, key: strange},
    ]
    seen: list[Any] = []

    def look(value: Any) -> Any:
        """In a thread."""
        seen.append(value)
        return value

    pipeline = Pipeline([Stage("A", 1, [look]), Stage("B", 3, [same])])
    results = await pipeline.run(inputs)
    assert results.failures == []
    wrapped = {
        "item": (1, "a value"),
        "dict with id": (STRANGE_VALUES["dict with id"], "x"),
    }
    expected = [
        wrapped.get(name, (value, number))
        for number, (name, value) in enumerate(STRANGE_VALUES.items())
    ]
    expected += [(strange, strange), (inputs[-1], strange)]
    assert len(results) == len(expected)
    for result, value, (wanted, item_id) in zip(results, seen, expected):
        assert result.value is value is wanted
        assert result.id is item_id
    assert list(results[-2].metadata.values()) == [strange]
    assert next(iter(results[-2].metadata)) is key


@row(21, VALUES)
async def test_a_value_that_refuses_all_fails_where_its_own_code_is_asked() -> None:
    """A rule that asks for its truth fails that item, which can be reported all the same."""
    strange = Hostile()
    stage = Stage("A", 2, [same], skip_if=lambda value: value)
    pipeline = Pipeline([stage], status_tracker=StatusTracker())
    results = await pipeline.run([strange, 0, strange])
    assert results.values == [0]
    for failed in results.failures:
        assert failed.value is failed.stage_value is strange
        assert failed.error == "leave me alone"
    assert pipeline.get_error_summary().errors_by_type == {"RuntimeError": 2}
    with pytest.raises(ExceptionGroup) as caught:
        results.raise_for_failures()
    assert len(caught.value.exceptions) == 2


class UnreadableError(Exception):
    """Says nothing of itself."""

    def __str__(self) -> str:
        raise RuntimeError("do not read me")


class HostileError(UnreadableError, Hostile):
    """Neither compares nor hashes, either."""

    __repr__ = Exception.__repr__
    # What an exception is, must be known: Python itself asks.
    __class__ = vars(object)["__class__"]


class UnpicklableError(Exception):
    """Holds what cannot be pickled, and cannot be made from its message."""

    def __init__(self, first: str, second: object) -> None:
        super().__init__(f"{first} and {second}")
        self.function = lambda: second


def cyclic_error() -> Exception:
    error = OddError("round and round")
    error.myself = error  # type: ignore[attr-defined]
    error.__cause__ = OddError("the cause")
    error.__cause__.__context__ = error
    return error


MEGABYTE = "long " * 200_000
MAKERS: dict[str, Any] = {
    "unreadable": UnreadableError,
    "hostile": HostileError,
    "1 MB": lambda: OddError(MEGABYTE),
    "cyclic": cyclic_error,
    "unpicklable": lambda: UnpicklableError("one", 2),
    "empty": OddError,
    "frozen": lambda: FrozenError(404),
}
TEXTS = {
    "unreadable": "<UnreadableError whose text cannot be read>",
    "hostile": "<HostileError whose text cannot be read>",
    "1 MB": MEGABYTE,
    "cyclic": "round and round",
    "unpicklable": "one and 2",
    "empty": "OddError",
    "frozen": "404",
}


@row(22, ERRORS)
@explored(
    2,
    names=st.lists(st.sampled_from(list(MAKERS)), min_size=1, max_size=5),
    scope=scopes,
    attempts=st.integers(1, 2),
    how=st.sampled_from(["run", "stream", "ordered", "feed"]),
)
def test_any_exception_is_a_failure_like_others(
    backend: str, schedule: list[Decision], names: list[str], scope: str, attempts: int, how: str
) -> None:
    # As users have them: stamina's own log of retries is told of each.
    stamina.instrumentation.set_on_retry_hooks(None)
    raised: dict[int, list[Exception]] = {number: [] for number in range(len(names))}
    heard: list[Any] = []

    async def fail(number: int) -> int:
        await checkpoint()
        if number == len(names):
            return number
        raised[number].append(MAKERS[names[number]]())
        raise raised[number][-1]

    def tell(item_id: int, error: Exception, payload: Any) -> None:
        heard.append((item_id, error))

    tracker = StatusTracker(on_failure=tell)
    stage = Stage("A", 2, [fail], policy(scope, attempts), queue_capacity=1)
    pipeline = Pipeline([stage, Stage("B", 1, [same])], status_tracker=tracker)
    count = len(names) + 1

    async def main() -> None:
        async with no_task_left():
            if how == "run":
                results = await pipeline.run(range(count))
                assert results.values == [count - 1]
            elif how == "feed":
                async with pipeline:
                    await pipeline.feed(range(count))
                assert pipeline.results.values == [count - 1]
            else:
                async with pipeline.stream(range(count), ordered=how == "ordered") as stream:
                    taken = [result async for result in stream]
                assert sorted(result.id for result in taken) == list(range(count))
                for result in taken:
                    error = raised[result.id][-1] if result.id < len(names) else None
                    assert result.error is error

    explore(main, backend=backend, schedule=schedule)
    assert {len(errors) for errors in raised.values()} == {attempts}
    kept = tracker.get_failed_items()
    if how in ("run", "feed"):
        assert sorted(failed.item_id for failed in pipeline.failures) == list(range(len(names)))
        kept += pipeline.failures
    for failed in kept:
        name = names[failed.item_id]
        assert failed.exception is raised[failed.item_id][-1]
        assert failed.exception.__traceback__ is not None
        assert failed.error == TEXTS[name]
        assert failed.error_type == type(failed.exception).__name__
        assert failed.attempts == attempts
        assert TEXTS[name] in str(failed.as_exception())
        # Without the exception itself, the report of it goes through any pickle.
        report = attrs.evolve(failed, exception=None)
        assert pickle.loads(pickle.dumps(report)).error == TEXTS[name]
    assert all(error is raised[item_id][-1] for item_id, error in heard)
    assert len(heard) == len(names)
    assert tracker.callback_errors == 0


@dataclass(frozen=True)
class FrozenError(Exception):
    """Lets nobody set anything."""

    code: int


@row(22, ERRORS)
@pytest.mark.parametrize("scope", ["task", "stage"])
async def test_a_retry_hook_may_raise_any_exception(scope: Any) -> None:
    async def fail(value: int) -> None:
        raise OddError(value)

    def hook(error: Exception) -> bool:
        raise FrozenError(404)

    stage = Stage("A", 1, [fail], RetryPolicy(scope=scope, on=hook))
    results = await Pipeline([stage]).run(range(3))
    for failed in results.failures:
        assert failed.exception == FrozenError(404)
        # With its occasion.
        assert isinstance(failed.exception.__context__, OddError)
    assert [failed.value for failed in results.failures] == [0, 1, 2]


@row(22, ERRORS)
@pytest.mark.virtual_time
@pytest.mark.parametrize("scope", ["task", "stage"])
@pytest.mark.parametrize("watched", [False, True])
async def test_a_stream_keeps_no_exception(scope: str, watched: bool) -> None:
    """One that holds itself is freed by the next collection, while the stream goes on."""
    alive: list[weakref.ref[Exception]] = []

    async def fail(value: int) -> int:
        await checkpoint()
        error = cyclic_error()
        alive.append(weakref.ref(error))
        raise error

    stage = Stage("A", 1, [fail], policy(scope, attempts=3), queue_capacity=0)
    tracker = StatusTracker(on_failure=lambda *args: None)
    pipeline = Pipeline([stage], status_tracker=tracker if watched else None)
    async with pipeline.stream(range(9), buffer_size=0) as results:
        for before in range(4):
            assert (await anext(results)).error is not None
            # A tracker is what remembers, until it is told to forget.
            tracker.clear()
            gc.collect()
            # The worker may have what was taken just now still in hand, but none from before.
            freed = [reference() is None for reference in alive[: 3 * before]]
            assert freed == [True] * 3 * before
