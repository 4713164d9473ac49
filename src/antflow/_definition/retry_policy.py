"""Retry policies: which errors are retried, how often, and after which delay."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from typing import Any, Literal

from attrs import field, frozen

from .._model.describe import leaf_exceptions, short_repr
from .._model.errors import AntFlowError
from .callables import handler_name, is_async
from .validation import check_int, check_number, check_signature, reject_argument

BackoffHook = Callable[[Exception], "bool | float | dt.timedelta"]


def _check_on(policy: RetryPolicy, attribute: Any, on: object) -> None:
    if isinstance(on, BaseException):
        reject_argument(
            "RetryPolicy", "on", "an exception class", on, f"Write on={type(on).__name__}."
        )
    if isinstance(on, list):
        reject_argument("RetryPolicy", "on", "a tuple of exception classes", on, "Write on=(…).")
    kinds = on if isinstance(on, tuple) else (on,)
    if not kinds:
        reject_argument("RetryPolicy", "on", "at least one exception class", on)
    for kind in kinds:
        if isinstance(kind, type):
            if not issubclass(kind, Exception):
                reject_argument(
                    "RetryPolicy",
                    "on",
                    "Exception or subclasses of it",
                    kind,
                    "Cancellation and KeyboardInterrupt are not Exceptions, and are never retried.",
                )
        elif on is kind and callable(on):
            if is_async(on):
                reject_argument(
                    "RetryPolicy", "on", "a plain function as hook", on, "Write def, not async def."
                )
            check_signature("RetryPolicy", "on", on, "error")
        else:
            reject_argument(
                "RetryPolicy",
                "on",
                "an exception class, a tuple of them, or a hook that takes the exception and "
                "returns a bool, seconds or a timedelta",
                on,
            )


def _check_attempts(policy: RetryPolicy, attribute: Any, attempts: object) -> None:
    check_int("RetryPolicy", "attempts", attempts, at_least=1)


def _check_wait(policy: RetryPolicy, attribute: Any, wait: object) -> None:
    check_number("RetryPolicy", attribute.name, wait, at_least=0)


def _check_scope(policy: RetryPolicy, attribute: Any, scope: object) -> None:
    if not isinstance(scope, str) or scope not in ("task", "stage"):
        reject_argument("RetryPolicy", "scope", "'task' or 'stage'", scope)


def _check_wait_max(policy: RetryPolicy, attribute: Any, wait_max: object) -> None:
    check_number(
        "RetryPolicy",
        "wait_max",
        wait_max,
        at_least=policy.wait_initial,
        hint=f"wait_initial is {policy.wait_initial!r}, and no wait is longer than wait_max.",
        infinite=True,
    )


def _check_base(policy: RetryPolicy, attribute: Any, base: object) -> None:
    check_number("RetryPolicy", "wait_exp_base", base, at_least=1)


def _never(error: Exception) -> bool:
    return False


@frozen(kw_only=True)
class RetryPolicy:
    """
    Which errors are retried, how often, and after which delay.

    The back-off before attempt *n + 1* is
    ``min(wait_max, wait_initial * wait_exp_base ** (n - 1) + random(0, wait_jitter))`` seconds,
    as in `stamina.retry <https://stamina.hynek.me/>`_, which does the waiting:
    ``stamina.set_active(False)`` and ``stamina.set_testing(True)`` apply here, too.

    Args:
        scope: ``"task"`` retries each task by itself; ``"stage"`` puts the item back into the queue
            of its stage, which starts again with its first task.
        attempts: How many attempts are made in total, including the first; at least 1.
        on: An exception class or a tuple of classes; a group matches if each of its exceptions
            does. Or a hook: a function that takes the exception and returns True (retry), False
            (fail), or the seconds to wait, as a number or timedelta, in place of the formula above.
            Use such a number for servers that send Retry-After. An `AntFlowError` that a task
            raises, alone or in a group, fails the item at once: no hook is called, and other
            classes do not match it. To retry it, name its class or a base class that belongs to
            antflow, as in ``on=(OSError, TaskFailedError)``.
        wait_initial: Seconds before the second attempt.
        wait_max: The upper bound of the formula, in seconds.
        wait_jitter: Up to this many random seconds are added to each wait.
        wait_exp_base: The factor by which each wait is longer than the previous one.

    Raises:
        StageValidationError: An argument is out of bounds.
    """

    scope: Literal["task", "stage"] = field(default="task", validator=_check_scope)
    attempts: int = field(default=3, validator=_check_attempts)
    on: type[Exception] | tuple[type[Exception], ...] | BackoffHook = field(
        default=Exception, validator=_check_on
    )
    wait_initial: float = field(default=1.0, validator=_check_wait)
    wait_max: float = field(default=60.0, validator=_check_wait_max)
    wait_jitter: float = field(default=1.0, validator=_check_wait)
    wait_exp_base: float = field(default=2.0, validator=_check_base)

    @classmethod
    def fixed(cls, scope: Literal["task", "stage"], attempts: int, wait: float) -> RetryPolicy:
        """Return the policy for the plain keywords of a stage: each wait is *wait* seconds."""
        return cls(
            scope=scope,
            attempts=attempts,
            wait_initial=wait,
            wait_max=max(wait, math.ulp(0.0)),
            wait_jitter=0.0,
            wait_exp_base=1.0,
        )

    @classmethod
    def never(cls) -> RetryPolicy:
        """Return the policy of ``retry=None``: there is one attempt, in stamina's test mode too."""
        return cls(attempts=1, on=_never)

    def decide(self, error: Exception) -> bool | float:
        """
        Ask `on` about *error*.

        Returns:
            False to fail, True to retry, or the seconds to wait before the retry. Negative seconds
            become 0.0, because a Retry-After may be in the past.

        Raises:
            TypeError: The hook returned something else.
        """
        leaves = leaf_exceptions(error)
        of_antflow = [leaf for leaf in leaves if isinstance(leaf, AntFlowError)]
        if isinstance(self.on, (type, tuple)):
            kinds = self.on if isinstance(self.on, tuple) else (self.on,)
            named = tuple(kind for kind in kinds if issubclass(kind, AntFlowError))
            if not all(isinstance(leaf, named) for leaf in of_antflow):
                return False
            return isinstance(error, kinds) or all(isinstance(leaf, kinds) for leaf in leaves)
        if of_antflow:
            return False
        verdict: object = self.on(error)
        if isinstance(verdict, bool):
            return verdict
        if isinstance(verdict, dt.timedelta):
            verdict = verdict.total_seconds()
        if not isinstance(verdict, (int, float)) or math.isnan(verdict):
            raise TypeError(
                f"RetryPolicy: the hook on={handler_name(self.on)} must return True, False, or the "
                f"seconds to wait as a number or timedelta, got {short_repr(verdict)}."
            )
        return max(0.0, float(verdict))
