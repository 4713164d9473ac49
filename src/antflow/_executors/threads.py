"""Worker threads, in which the plain functions of a stage run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyio import CapacityLimiter, to_thread


class ThreadExecutor:
    """
    Calls functions in threads.

    Args:
        max_threads: How many run at the same time. anyio's default limiter would allow 40 in all,
            whatever the stages say.
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
            try:
                return function(*args, **kwargs), None
            except BaseException as error:
                return None, error

        result, error = await to_thread.run_sync(in_thread, limiter=self._limiter)
        if error is None:
            return result
        try:
            raise error
        finally:
            # Its traceback refers to this frame.
            del error
