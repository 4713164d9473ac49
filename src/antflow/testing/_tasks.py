"""Builders of task functions that fail or wait on purpose."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import RunVar

from .._definition.callables import is_async, is_awaitable, task_name
from .._definition.stage import Task
from .._definition.validation import check_int, check_number, check_signature, reject_argument
from .._model.describe import short_repr
from ._equality import equality_key

T = TypeVar("T")
AsyncTask = Callable[..., Any]
ErrorFactory = type[BaseException] | Callable[[Any], BaseException]


def flaky(
    task: Task | None = None,
    *,
    times: int | Callable[[Any], int] = 2,
    error: ErrorFactory = ConnectionError,
) -> AsyncTask:
    """
    Return a task that fails the first attempts of each item and then calls *task*.

    Attempts are counted per value. Values are the same if their types are the same and they are
    equal or, if they are unhashable, have the same repr. Items whose attempts are to be counted
    separately need different values. The count of a value starts again when an attempt passes, so
    the same value fails as often when it comes again. If an item runs out of attempts before that,
    its count continues with the next item that has its value. Each event loop has its own counts.

    An attempt raises `StageValidationError` if *times* is a function and returns no valid number,
    and TypeError if *error* is a function and returns no exception.

    Args:
        task: An async or plain function. By default the value is returned.
        times: The number of attempts that fail for each item, or a function that returns it for a
            value. Default 2.
        error: An exception class, or a function that returns an exception for a value. Default
            ConnectionError.

    Raises:
        StageValidationError: An argument is not valid.
    """
    owner = "flaky()"
    _check_task(owner, task, "Write flaky(times=…).")
    if callable(times):
        _check_function(owner, "times", times, "Write flaky(task, times=…).")
    else:
        check_int(owner, "times", times, at_least=0)
    _check_error(owner, error)
    failures = RunVar[Counter[Hashable]]("failures so far, by equality key")

    async def before(value: Any) -> None:
        planned = times(value) if callable(times) else times
        check_int(owner, f"times({short_repr(value)})", planned, at_least=0)
        counts = _get_or_set(failures, Counter)
        key = equality_key(value)
        if counts[key] < planned:
            counts[key] += 1
            raise _make_error(error, value, f"planned failure {counts[key]} of {planned}")
        del counts[key]

    return _call_before(before, task, "flaky")


def failing(
    error: ErrorFactory = ValueError,
    task: Task | None = None,
    *,
    when: Callable[[Any], Any] = lambda value: True,
) -> AsyncTask:
    """
    Return a task that fails every attempt of some items and calls *task* for the others.

    An attempt raises TypeError if *error* is a function and returns no exception.

    Args:
        error: An exception class, or a function that returns an exception for a value. Default
            ValueError.
        task: An async or plain function. By default the value is returned.
        when: A function that returns for a value whether its attempts fail. By default all fail.

    Raises:
        StageValidationError: An argument is not valid.
    """
    owner = "failing()"
    _check_error(owner, error)
    _check_task(owner, task, "Write failing(error, task, when=…).")
    _check_function(owner, "when", when)

    async def before(value: Any) -> None:
        if when(value):
            raise _make_error(error, value, "planned failure of every attempt")

    return _call_before(before, task, "failing")


def slow(
    delay: float | Sequence[float] | Callable[[Any], float], task: Task | None = None
) -> AsyncTask:
    """
    Return a task that sleeps before it calls *task*.

    A call raises `StageValidationError` if *delay* is a function and returns no valid number.

    Args:
        delay: Seconds before each call; or a sequence of seconds, one per call and then again from
            its start, beginning anew in each event loop; or a function that returns the seconds for
            a value. With math.inf a call sleeps until it is cancelled.
        task: An async or plain function. By default the value is returned.

    Raises:
        StageValidationError: An argument is not valid.
    """
    owner = "slow()"
    hint = "Write slow(seconds, task)."
    _check_task(owner, task, hint)
    if callable(delay):
        _check_function(owner, "delay", delay, hint)
        seconds = delay
    elif isinstance(delay, Sequence) and not isinstance(delay, (str, bytes)):
        if not delay:
            reject_argument(owner, "delay", "at least one number of seconds", delay)
        for index, each in enumerate(delay):
            check_number(owner, f"delay[{index}]", each, at_least=0, infinite=True)
        seconds = _cycle(tuple(delay))
    else:
        check_number(owner, "delay", delay, at_least=0, infinite=True)
        seconds = functools.partial(_constant, delay)

    async def before(value: Any) -> None:
        wait = seconds(value)
        check_number(owner, f"delay({short_repr(value)})", wait, at_least=0, infinite=True)
        await (anyio.sleep_forever() if wait == math.inf else anyio.sleep(wait))

    return _call_before(before, task, "slow")


def _call_before(before: Callable[[Any], Any], task: Task | None, name: str) -> AsyncTask:
    """Return a task that calls *before* and then *task*, which by default returns its value."""

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        # With `unpack_args`, the value is all arguments together.
        await before(args[0] if len(args) == 1 and not kwargs else kwargs or args)
        if is_async(inner):
            return await inner(*args, **kwargs)
        # As in a stage, a plain function runs in a thread, since it may block. Its result is
        # wrapped in a tuple because trio refuses to return a bare coroutine from a thread.
        (result,) = await anyio.to_thread.run_sync(lambda: (inner(*args, **kwargs),))
        return await result if is_awaitable(result) else result

    inner = _return_value if task is None else task
    # Keeps the signature, which a stage checks.
    functools.update_wrapper(wrapper, inner, updated=())
    wrapper.__name__ = wrapper.__qualname__ = name if task is None else task_name(task)
    return wrapper


async def _return_value(value: Any) -> Any:
    return value


def _constant(delay: Any, value: Any) -> Any:
    return delay


def _cycle(delays: tuple[float, ...]) -> Callable[[Any], float]:
    calls = RunVar["itertools.cycle[float]"]("delays of the next calls")

    def seconds(value: Any) -> float:
        next_delays = _get_or_set(calls, functools.partial(itertools.cycle, delays))
        return next(next_delays)

    return seconds


def _get_or_set(variable: RunVar[T], make: Callable[[], T]) -> T:
    """Return the value of *variable* in this event loop; if it has none, set it to ``make()``."""
    try:
        return variable.get()
    except LookupError:
        value = make()
        variable.set(value)
        return value


def _make_error(error: ErrorFactory, value: Any, reason: str) -> BaseException:
    made: object = error(f"{reason}: {short_repr(value)}" if isinstance(error, type) else value)
    if not isinstance(made, BaseException):
        raise TypeError(
            f"error({short_repr(value)}) must return an exception, got {short_repr(made)}"
        )
    return made


def _check_task(owner: str, task: object, hint: str) -> None:
    if task is not None and not callable(task):
        reject_argument(owner, "task", "a function or None", task, hint)


def _check_error(owner: str, error: Any) -> None:
    hint: str | None
    if isinstance(error, BaseException):
        # An instance that is raised again keeps the traceback of the first time.
        name = type(error).__name__
        hint = f"Write error={name}, or error=lambda value: {name}(…) for a new one each time."
        reject_argument(owner, "error", "an exception class or a function", error, hint)
    if isinstance(error, type):
        if not issubclass(error, BaseException):
            reject_argument(owner, "error", "an exception class or a function", error)
    else:
        hint = "Write failing(error, task)." if owner == "failing()" else None
        _check_function(owner, "error", error, hint)


def _check_function(owner: str, argument: str, function: Any, hint: str | None = None) -> None:
    """Reject *function* unless it is a plain function that can be called with one value."""
    if not callable(function) or is_async(function):
        reject_argument(owner, argument, "a plain function of the value", function, hint)
    check_signature(owner, argument, function, "value")
