"""The worker threads in which plain functions run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyio import CapacityLimiter, to_thread

from .._backend.context import enter_thread


class ThreadExecutor:
    """
    Calls functions in threads.

    Args:
        max_threads: How many calls may run at the same time. anyio's default limiter would allow 40
            in the whole process, regardless of the number of workers.
    """

    __slots__ = ("_limiter",)

    def __init__(self, max_threads: int) -> None:
        self._limiter = CapacityLimiter(max_threads)

    async def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """
        Return what *function* returns, or raise what it raises.

        A thread cannot be interrupted: a cancellation takes effect when *function* has returned.
        """

        def in_thread() -> tuple[Any, BaseException | None]:
            # In a tuple, because trio refuses to return a coroutine from a thread. The error is
            # returned, too: what anyio has around the call sets its traceback by assignment, which
            # exceptions of frozen classes refuse.
            call = enter_thread()
            try:
                return function(*args, **kwargs), None
            except BaseException as error:
                return None, error
            finally:
                call.active = False

        result, error = await to_thread.run_sync(in_thread, limiter=self._limiter)
        if error is None:
            return result
        try:
            raise error
        finally:
            # Its traceback refers to this frame.
            del error
