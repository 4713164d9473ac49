"""Rows 20 to 22: unusual ids, values and exceptions."""

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
from faults.kit import explored, no_leaked_tasks, row

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

IDS = "Duplicate, None, unhashable, huge and multi-line ids: items are identified by number"
VALUES = "Any value passes through unchanged: None, exceptions, dicts, 10 MB, hostile objects"
ERRORS = "Any exception is an ordinary failure: unreadable, huge, cyclic, unpicklable"

known: ContextVar[Any] = ContextVar("known")
scopes = st.sampled_from(["task", "stage"])
workers = st.integers(1, 3)


def raise_unsupported(*args: object) -> Any:
    raise RuntimeError("not supported")


class Hostile:
    """An object whose special methods all raise."""

    __eq__ = __hash__ = __bool__ = __len__ = __repr__ = __iter__ = raise_unsupported
    __class__ = property(raise_unsupported)  # type: ignore[assignment]


class OddError(Exception):
    """Raised by the tasks of this module."""


async def same(value: Any) -> Any:
    await checkpoint()
    return value


def policy(scope: Any, attempts: int = 2) -> RetryPolicy:
    return RetryPolicy(scope=scope, attempts=attempts, wait_initial=1, wait_jitter=0)


# By name, because hypothesis must be able to print what it drew.
LONG = "x" * 100_000
UNUSUAL_IDS: dict[str, Any] = {
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
    names=st.lists(st.sampled_from(list(UNUSUAL_IDS)), max_size=7),
    scope=scopes,
    workers=workers,
    tracked=st.booleans(),
    ordered=st.none() | st.booleans(),
)
def test_items_with_unusual_ids_are_identified_by_number(
    backend: str,
    schedule: list[Decision],
    names: list[str],
    scope: str,
    workers: int,
    tracked: bool,
    ordered: bool | None,
) -> None:
    """Every third item fails. Of the others, odd values are skipped in the last stage."""

    async def fail_some(value: int) -> int:
        await checkpoint()
        if value % 3 == 1:
            raise OddError
        return value

    calls: list[tuple[Any, Any, Any]] = []

    def record(item_id: Any, value: Any, payload: dict[str, Any]) -> None:
        calls.append((item_id, payload["id"], payload["metadata"]["number"]))

    ids = [UNUSUAL_IDS[name] for name in names]
    tracker = StatusTracker(on_success=record, on_failure=record) if tracked else None
    pipeline = Pipeline(
        [
            Stage("A", workers, [fail_some], policy(scope), queue_capacity=1),
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
        async with no_leaked_tasks():
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
        assert sorted(number for _, _, number in calls) == list(range(len(ids)))
        assert all(given is payload is ids[number] for given, payload, number in calls)
        # Equal ids such as 1 and True share an entry. Unhashable ids are compared by their repr.
        kinds = {"one" if name == "true" else name for name in names}
        assert len(tracker.get_tracked_ids()) == sum(tracker.get_stats().values()) == len(kinds)
        assert all(tracker.get_status(item_id) is not None for item_id in ids)


@row(20, IDS)
async def test_a_tracker_distinguishes_unusual_ids() -> None:
    tracker = StatusTracker()
    pipeline = Pipeline([Stage("A", 2, [same])], status_tracker=tracker)
    ids = [UNUSUAL_IDS[name] for name in UNUSUAL_IDS if name != "true"]
    await pipeline.run(Item(number, id=item_id) for number, item_id in enumerate(ids))
    assert {id(each) for each in tracker.get_tracked_ids()} == {id(item_id) for item_id in ids}
    for item_id in ids:
        status = tracker.get_status(item_id)
        assert status is not None
        assert status.item_id is item_id
        assert [event.item_id is item_id for event in tracker.get_history(item_id)] == [True] * 3


@row(20, IDS)
async def test_messages_about_unusual_ids_fit_on_one_line() -> None:
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


UNUSUAL_VALUES: dict[str, Any] = {
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
    names=st.lists(st.sampled_from(list(UNUSUAL_VALUES)), min_size=1, max_size=6),
    scope=scopes,
    attempts=st.integers(1, 2),
    plain=st.booleans(),
    how=st.sampled_from(["run", "stream", "ordered", "feed"]),
)
def test_any_value_passes_through_unchanged(
    backend: str,
    schedule: list[Decision],
    names: list[str],
    scope: str,
    attempts: int,
    plain: bool,
    how: str,
) -> None:
    """Tasks, callbacks and results get the same object, also after failed attempts."""
    values = [UNUSUAL_VALUES[name] for name in names]
    tried: list[int] = []
    calls: list[Any] = []

    async def flaky(pair: tuple[int, Any]) -> Any:
        number, value = pair
        await checkpoint()
        tried.append(number)
        if tried.count(number) < attempts:
            raise OddError(number)
        return value

    async def set_and_pass(value: Any) -> Any:
        # The worker also restores context variables whose values are hostile.
        assert known.get() is caller
        known.set(value)
        await checkpoint()
        return value

    def record(item_id: Any, value: Any, payload: dict[str, Any]) -> Any:
        calls.append((value, payload["value"]))
        return value if plain else None

    caller = Hostile()
    tracker = StatusTracker(on_success=record)
    pipeline = Pipeline(
        [
            Stage("A", 2, [flaky], policy(scope), queue_capacity=1),
            Stage("B", 2, [set_and_pass], skip_if=lambda value: False, on_success=record),
        ],
        status_tracker=tracker,
    )
    items = [Item((number, value)) for number, value in enumerate(values)]

    async def main() -> None:
        known.set(caller)
        outcomes: list[PipelineResult] = []
        async with no_leaked_tasks():
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
    assert len(tried) == attempts * len(values)
    assert len(calls) == 2 * len(values)
    assert all(value is again for value, again in calls)
    assert {id(value) for value, _ in calls} == {id(value) for value in values}
    # The value that a callback returns is ignored, unless it is awaitable.
    assert tracker.callback_errors == 0


@row(21, VALUES)
async def test_values_without_an_item_pass_through_unchanged() -> None:
    """The source yields plain values. A dict with an id is unwrapped, whatever else it contains."""
    hostile = Hostile()

    class Key:
        __eq__ = raise_unsupported

        def __hash__(self) -> int:
            return 1

    key = Key()
    inputs = [
        *UNUSUAL_VALUES.values(),
        {"id": hostile, "value": hostile, key: hostile},
        {"id": hostile, key: hostile},
    ]
    seen: list[Any] = []

    def record(value: Any) -> Any:
        """Runs in a worker thread."""
        seen.append(value)
        return value

    pipeline = Pipeline([Stage("A", 1, [record]), Stage("B", 3, [same])])
    results = await pipeline.run(inputs)
    assert results.failures == []
    wrapped = {
        "item": (1, "a value"),
        "result": (2, 1),
        "dict with id": (UNUSUAL_VALUES["dict with id"], "x"),
    }
    expected = [
        wrapped.get(name, (value, number))
        for number, (name, value) in enumerate(UNUSUAL_VALUES.items())
    ]
    expected += [(hostile, hostile), (inputs[-1], hostile)]
    assert len(results) == len(expected)
    for result, value, (wanted, item_id) in zip(results, seen, expected):
        assert result.value is value is wanted
        assert result.id is item_id
    assert list(results[-2].metadata.values()) == [hostile]
    assert next(iter(results[-2].metadata)) is key


@row(21, VALUES)
async def test_a_hostile_value_fails_only_where_its_own_methods_are_called() -> None:
    """A `skip_if` that evaluates its truth value fails the item; the failure can be reported."""
    hostile = Hostile()
    stage = Stage("A", 2, [same], skip_if=lambda value: value)
    pipeline = Pipeline([stage], status_tracker=StatusTracker())
    results = await pipeline.run([hostile, 0, hostile])
    assert results.values == [0]
    for failed in results.failures:
        assert failed.value is failed.stage_value is hostile
        assert failed.error == "not supported"
    assert pipeline.get_error_summary().errors_by_type == {"RuntimeError": 2}
    with pytest.raises(ExceptionGroup) as caught:
        results.raise_for_failures()
    assert len(caught.value.exceptions) == 2


class UnreadableError(Exception):
    """An exception whose message cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("no message")


class HostileError(UnreadableError, Hostile):
    """An exception that cannot be compared or hashed, either."""

    __repr__ = Exception.__repr__
    # Python itself reads the class of an exception.
    __class__ = vars(object)["__class__"]


class UnpicklableError(Exception):
    """Has an attribute that cannot be pickled, and cannot be recreated from its message."""

    def __init__(self, first: str, second: object) -> None:
        super().__init__(f"{first} and {second}")
        self.function = lambda: second


def cyclic_error() -> Exception:
    error = OddError("cyclic")
    error.itself = error  # type: ignore[attr-defined]
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
    "cyclic": "cyclic",
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
def test_any_exception_is_an_ordinary_failure(
    backend: str, schedule: list[Decision], names: list[str], scope: str, attempts: int, how: str
) -> None:
    # The default hooks, as for users: stamina logs each retry.
    stamina.instrumentation.set_on_retry_hooks(None)
    raised: dict[int, list[Exception]] = {number: [] for number in range(len(names))}
    calls: list[Any] = []

    async def fail(number: int) -> int:
        await checkpoint()
        if number == len(names):
            return number
        raised[number].append(MAKERS[names[number]]())
        raise raised[number][-1]

    def record(item_id: int, error: Exception, payload: Any) -> None:
        calls.append((item_id, error))

    tracker = StatusTracker(on_failure=record)
    stage = Stage("A", 2, [fail], policy(scope, attempts), queue_capacity=1)
    pipeline = Pipeline([stage, Stage("B", 1, [same])], status_tracker=tracker)
    count = len(names) + 1

    async def main() -> None:
        async with no_leaked_tasks():
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
        # Without the exception itself, every failure can be pickled.
        report = attrs.evolve(failed, exception=None)
        assert pickle.loads(pickle.dumps(report)).error == TEXTS[name]
    assert all(error is raised[item_id][-1] for item_id, error in calls)
    assert len(calls) == len(names)
    assert tracker.callback_errors == 0


@dataclass(frozen=True)
class FrozenError(Exception):
    """An exception whose attributes cannot be set."""

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
        # The exception of the task is its context.
        assert isinstance(failed.exception.__context__, OddError)
    assert [failed.value for failed in results.failures] == [0, 1, 2]


@row(22, ERRORS)
@pytest.mark.virtual_time
@pytest.mark.parametrize("scope", ["task", "stage"])
@pytest.mark.parametrize("tracked", [False, True])
async def test_a_stream_keeps_no_reference_to_exceptions(scope: str, tracked: bool) -> None:
    """A cyclic exception is freed by the next garbage collection, while the stream continues."""
    alive: list[weakref.ref[Exception]] = []

    async def fail(value: int) -> int:
        await checkpoint()
        error = cyclic_error()
        alive.append(weakref.ref(error))
        raise error

    stage = Stage("A", 1, [fail], policy(scope, attempts=3), queue_capacity=0)
    tracker = StatusTracker(on_failure=lambda *args: None)
    pipeline = Pipeline([stage], status_tracker=tracker if tracked else None)
    async with pipeline.stream(range(9), buffer_size=0) as results:
        for before in range(4):
            assert (await anext(results)).error is not None
            # A tracker keeps failures until it is cleared.
            tracker.clear()
            gc.collect()
            # The worker may still refer to exceptions of the latest item, but not of earlier items.
            freed = [reference() is None for reference in alive[: 3 * before]]
            assert freed == [True] * 3 * before
