"""Task functions that misbehave on purpose."""

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
from ._equality import key_of

T = TypeVar("T")
AsyncTask = Callable[..., Any]
Raised = type[BaseException] | Callable[[Any], BaseException]


def flaky(
    task: Task | None = None,
    *,
    times: int | Callable[[Any], int] = 2,
    error: Raised = ConnectionError,
) -> AsyncTask:
    """
    Return a task that fails the first attempts of each item, and then does what *task* does.

    An item is known by its value: by its type and equality, or, if it cannot be hashed, by its
    repr. So give items that are to be counted apart different values. An item that got through is
    forgotten: if its value comes again, in this run or in the next, it fails as often again. One
    that did not, since it had fewer attempts, goes on counting if its value comes again in the same
    event loop; another loop begins anew.

    Args:
        task: Async or plain; without it the value is passed on.
        times: How many attempts of each item fail; or a function that says so for a value.
        error: A class of exceptions; or a function that makes one for a value.

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
    failed = RunVar[Counter[Hashable]]("attempts that failed, by key")

    async def before(value: Any) -> None:
        number = times(value) if callable(times) else times
        check_int(owner, f"times({short_repr(value)})", number, at_least=0)
        counts = _of_this_loop(failed, Counter)
        key = key_of(value)
        if counts[key] < number:
            counts[key] += 1
            raise _made(error, value, f"attempt {counts[key]} of {number} that fail")
        del counts[key]

    return _preceded(before, task, "flaky")


def failing(
    error: Raised = ValueError,
    task: Task | None = None,
    *,
    when: Callable[[Any], Any] = lambda value: True,
) -> AsyncTask:
    """
    Return a task that fails for some items, however often it is tried.

    Args:
        error: A class of exceptions; or a function that makes one for a value.
        task: What is done for the other items, async or plain; without it the value is passed on.
        when: Says for a value whether it fails.

    Raises:
        StageValidationError: An argument is not valid.
    """
    owner = "failing()"
    _check_error(owner, error)
    _check_task(owner, task, "Write failing(error, task, when=…).")
    _check_function(owner, "when", when)

    async def before(value: Any) -> None:
        if when(value):
            raise _made(error, value, "it fails whenever it is tried")

    return _preceded(before, task, "failing")


def slow(
    delay: float | Sequence[float] | Callable[[Any], float], task: Task | None = None
) -> AsyncTask:
    """
    Return a task that waits before it does what *task* does.

    Args:
        delay: Seconds; or several, one for each call in turn, from the first one on in each event
            loop; or a function that returns them for a value. math.inf waits until it is cancelled.
        task: Async or plain; without it the value is passed on.

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
        seconds = _in_turn(tuple(delay))
    else:
        check_number(owner, "delay", delay, at_least=0, infinite=True)
        seconds = functools.partial(_always, delay)

    async def before(value: Any) -> None:
        wait = seconds(value)
        check_number(owner, f"delay({short_repr(value)})", wait, at_least=0, infinite=True)
        await (anyio.sleep_forever() if wait == math.inf else anyio.sleep(wait))

    return _preceded(before, task, "slow")


def _preceded(before: Callable[[Any], Any], task: Task | None, name: str) -> AsyncTask:
    """Return *task*, or one that passes its value on, with *before* in front."""

    async def preceded(*args: Any, **kwargs: Any) -> Any:
        # With `unpack_args` the item is all that it was unpacked into.
        await before(args[0] if len(args) == 1 and not kwargs else kwargs or args)
        if is_async(inner):
            return await inner(*args, **kwargs)
        # As in a stage: a plain function may block. In a tuple, since trio refuses to bring a
        # coroutine back from a thread.
        (result,) = await anyio.to_thread.run_sync(lambda: (inner(*args, **kwargs),))
        return await result if is_awaitable(result) else result

    inner = _pass_on if task is None else task
    # Keeps the signature, by which a stage checks that the task takes what it is given.
    functools.update_wrapper(preceded, inner, updated=())
    preceded.__name__ = preceded.__qualname__ = name if task is None else task_name(task)
    return preceded


async def _pass_on(value: Any) -> Any:
    return value


def _always(delay: Any, value: Any) -> Any:
    return delay


def _in_turn(delays: tuple[float, ...]) -> Callable[[Any], float]:
    calls = RunVar["itertools.cycle[float]"]("the delays to come")

    def seconds(value: Any) -> float:
        to_come = _of_this_loop(calls, functools.partial(itertools.cycle, delays))
        return next(to_come)

    return seconds


def _of_this_loop(variable: RunVar[T], make: Callable[[], T]) -> T:
    try:
        return variable.get()
    except LookupError:
        made = make()
        variable.set(made)
        return made


def _made(error: Raised, value: Any, why: str) -> BaseException:
    made: object = error(f"{why}: {short_repr(value)}" if isinstance(error, type) else value)
    if not isinstance(made, BaseException):
        raise TypeError(
            f"error({short_repr(value)}) must return an exception, got {short_repr(made)}"
        )
    return made


def _check_task(owner: str, task: object, hint: str) -> None:
    if task is not None and not callable(task):
        reject_argument(owner, "task", "a function or None", task, hint)


def _check_error(owner: str, error: Any) -> None:
    if isinstance(error, BaseException):
        # Raised twice, it would carry the traceback of the first time.
        name = type(error).__name__
        hint = f"Write error={name}, or error=lambda value: {name}(…) to make one each time."
        reject_argument(owner, "error", "an exception class or a function", error, hint)
    if isinstance(error, type):
        if not issubclass(error, BaseException):
            reject_argument(owner, "error", "an exception class or a function", error)
    else:
        what_for = "Write failing(error, task)." if owner == "failing()" else None
        _check_function(owner, "error", error, what_for)


def _check_function(owner: str, argument: str, function: Any, hint: str | None = None) -> None:
    """Refuse *function* unless it is plain, and takes a value."""
    if not callable(function) or is_async(function):
        reject_argument(owner, argument, "a plain function of the value", function, hint)
    check_signature(owner, argument, function, "value")
