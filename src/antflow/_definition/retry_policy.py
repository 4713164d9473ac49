"""When to try again, and how long to wait: retry policies, carried out by stamina."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from typing import Any, Literal

import stamina
from attrs import field, frozen

from .._model.errors import leaf_exceptions, short_repr
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
                    "Cancellation and KeyboardInterrupt are no Exceptions and must never be "
                    "retried.",
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


@frozen(kw_only=True)
class RetryPolicy:
    """
    What is tried again, how often, and after how long.

    The back-off before attempt *n + 1* is
    ``min(wait_max, wait_initial * wait_exp_base ** (n - 1) + random(0, wait_jitter))`` seconds,
    as in `stamina.retry <https://stamina.hynek.me/>`_, which carries the policy out:
    ``stamina.set_active(False)`` and ``stamina.set_testing(True)`` hold here too.

    Args:
        scope: ``"task"`` tries each task by itself again; ``"stage"`` puts the item back into the
            queue of its stage, where it begins with the first task again.
        attempts: How often in all, the first time included. At least 1.
        on: Exception class or tuple of classes, which hold for a group if they do for each of its
            exceptions; or a hook: it is given the exception and returns True (try again), False
            (give up), or the seconds to wait as a number or timedelta, instead of the formula
            above: for servers that send Retry-After.
        wait_initial: Seconds before the second attempt.
        wait_max: No wait from the formula is longer than this many seconds.
        wait_jitter: Up to this many random seconds are added.
        wait_exp_base: Each wait is this many times the one before.

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
        """Return the policy that the plain keywords of a stage stand for: the same waits."""
        return cls(
            scope=scope,
            attempts=attempts,
            wait_initial=wait,
            wait_max=max(wait, math.ulp(0.0)),
            wait_jitter=0.0,
            wait_exp_base=1.0,
        )

    def judge(self, error: Exception) -> bool | float:
        """
        Ask `on` about *error*.

        Returns:
            False to give up, True to try again, or the seconds to wait before that: a time that
            is past already (a Retry-After may be) is none.

        Raises:
            TypeError: The hook returned something else.
        """
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on) or all(
                isinstance(leaf, self.on) for leaf in leaf_exceptions(error)
            )
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


class Retries:
    """
    The retries of one call, or of one item at a stage, from its first failure on.

    The first attempt is made outside, since a stamina context costs a hundred times what an
    attempt costs that does not fail. Then, for each failed attempt, `granted()` says whether there
    will be another, so that the event can be published and the worker set free before the wait;
    and `back_off()` lets stamina wait. stamina has no question without the wait, so the answer is
    worked out here, from the same three facts: the verdict of `on`, the attempts, the switch.
    In stamina's test mode the attempts are its own secret, but there are no waits: there, stamina
    itself is asked.
    """

    __slots__ = ("_ahead", "_attempt", "_context", "_name", "_policy", "_verdict")

    def __init__(self, policy: RetryPolicy, name: str) -> None:
        self._policy = policy
        self._name = name
        self._context: Any = None
        self._attempt: Any = None
        self._verdict: bool | float = False
        # Whether stamina already went on to the next attempt, as it does in test mode.
        self._ahead = False

    async def granted(self, error: Exception, attempt: int) -> bool:
        """
        Say whether *attempt*, which failed with *error*, is followed by another.

        Raises:
            Exception: A hook raised that the user gave to the policy or to stamina.
        """
        self._verdict = self._policy.judge(error)
        # A wait of zero is a yes.
        if self._verdict is False or not stamina.is_active():
            return False
        if not stamina.is_testing():
            if attempt >= self._policy.attempts:
                return False
            await self._report(error)
            return True
        await self._report(error)
        try:
            await self._advance()
        except Exception as final:
            if final is error:
                return False
            raise
        self._ahead = True
        return True

    async def back_off(self) -> None:
        """
        Wait until the next attempt is due.

        Raises:
            Exception: There is none after all: a hook that the user gave to stamina raised, or its
                test mode was switched between two attempts and it counts differently.
        """
        if not self._ahead:
            await self._advance()
        self._ahead = False

    async def _report(self, error: Exception) -> None:
        """Tell stamina that the present attempt failed with *error*."""
        if self._context is None:
            context = stamina.retry_context(
                on=lambda _: self._verdict,
                attempts=self._policy.attempts,
                # stamina's own time-out reads the wall clock, not that of the backend.
                timeout=None,
                wait_initial=self._policy.wait_initial,
                wait_max=self._policy.wait_max,
                wait_jitter=self._policy.wait_jitter,
                wait_exp_base=self._policy.wait_exp_base,
            )
            self._context = context.with_name(self._name, (), {}).__aiter__()
            await self._advance()
        # Handed over, not raised again: the traceback stays that of the task.
        self._attempt.__exit__(type(error), error, error.__traceback__)

    async def _advance(self) -> None:
        self._attempt = await self._context.__anext__()
