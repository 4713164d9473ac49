"""`Retries`: the state of a back-off; stamina does the waiting."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any

import stamina
from stamina.instrumentation import RetryDetails

from .._backend.cancellation import is_item_failure
from .._definition.retry_policy import RetryPolicy
from .retry_report import Retried, log_retry, run_hooks


class Retries:
    """
    The retries of one call, or of one item at a stage, from its first failure on.

    The caller makes the first attempt without this class, because a stamina context costs a hundred
    times as much as an attempt that does not fail. After each failed attempt, `granted()` says
    whether another one follows; then `back_off()` lets stamina wait. They are separate, so that the
    event is published and the worker is released before the wait. stamina decides and waits in one
    step. So the decision is made here, from the same three facts: the verdict of `on`, the number
    of attempts, and whether stamina is active. In stamina's test mode the number of attempts is not
    public, but there are no waits, so stamina itself decides.
    """

    __slots__ = (
        "_attempt",
        "_context",
        "_entered",
        "_has_advanced",
        "_policy",
        "_retried",
        "_task_name",
        "_verdict",
    )

    def __init__(self, policy: RetryPolicy, retried: Retried) -> None:
        self._policy = policy
        self._retried = retried
        # The task that raised last.
        self._task_name = ""
        # Holds the context managers that hooks returned, from their call to the next attempt.
        self._entered: ExitStack | None = None
        self._context: Any = None
        self._attempt: Any = None
        self._verdict: bool | float = False
        # Whether stamina has already begun the next attempt, as `granted()` lets it in test mode.
        self._has_advanced = False

    async def granted(self, error: Exception, attempt: int, task_name: str) -> bool:
        """
        Return whether another attempt follows *attempt*, which failed in a task with *error*.

        Raises:
            Exception: A hook that the user gave to the policy or to stamina raised it.
        """
        self._task_name = task_name
        self._verdict = self._policy.decide(error)
        # `is False`, because a wait of 0.0 seconds grants the attempt.
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
        self._has_advanced = True
        return True

    async def back_off(self) -> None:
        """
        Wait until the next attempt is due.

        Raises:
            Exception: No attempt follows after all: a hook that the user gave to stamina raised, or
                the test mode of stamina was changed between two attempts.
        """
        if not self._has_advanced:
            await self._advance()
        self._has_advanced = False

    async def _report(self, error: Exception) -> None:
        """Report to stamina that the current attempt failed with *error*."""
        if self._context is None:
            context = stamina.retry_context(
                on=lambda _: self._verdict,
                attempts=self._policy.attempts,
                # stamina's own time-out reads time.monotonic(), not the clock of the backend.
                timeout=None,
                wait_initial=self._policy.wait_initial,
                wait_max=self._policy.wait_max,
                wait_jitter=self._policy.wait_jitter,
                wait_exp_base=self._policy.wait_exp_base,
            )
            self._context = context.with_name(self._retried.name, (), {}).__aiter__()
            # There is no public way to replace the default hooks of stamina for this context only.
            # Where the private one is missing, stamina calls its hooks itself.
            with suppress(AttributeError):
                self._context._t_a_retrying.before_sleep = self._before_wait
            await self._advance()
        # Passed and not raised again, so that the traceback remains that of the task.
        self._attempt.__exit__(type(error), error, error.__traceback__)

    async def _advance(self) -> None:
        try:
            self._attempt = await self._context.__anext__()
        finally:
            entered, self._entered = self._entered, None
            if entered is not None:
                entered.close()

    def _before_wait(self, state: Any) -> None:
        """Report the retry; *state* is that of the library on which stamina is built."""
        wait = state.next_action.sleep
        details = RetryDetails(
            name=self._retried.name,
            args=(),
            kwargs={},
            retry_num=state.attempt_number,
            wait_for=wait,
            waited_so_far=state.idle_for - wait,
            caused_by=state.outcome.exception(),
        )
        # In test mode, stamina has put its number of attempts in place of that of the policy.
        attempts = getattr(state.retry_object.stop, "max_attempt_number", self._policy.attempts)
        self._entered = run_hooks(details)
        log_retry(self._retried, self._task_name, attempts, details)


async def ask_for_retry(
    retries: Retries, error: BaseException, attempt: int, task_name: str
) -> tuple[bool, BaseException]:
    """Return whether another attempt is granted, and the error to report."""
    if not isinstance(error, Exception):
        return False, error
    try:
        return await retries.granted(error, attempt, task_name), error
    except BaseException as hook_error:
        if not is_item_failure(hook_error):
            raise
        # The user's hook raised: that is the error to report, with the task's error as context. The
        # class of the hook's error may be frozen, so its own __setattr__ is bypassed.
        BaseException.__setattr__(hook_error, "__context__", error)
        return False, hook_error
