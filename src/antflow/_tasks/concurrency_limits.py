"""The semaphores behind concurrency limits, by task name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from weakref import WeakValueDictionary

from anyio import Semaphore, WouldBlock
from anyio.lowlevel import RunVar


def make_semaphores(limits: Mapping[str, int]) -> dict[str, Semaphore]:
    """Return a semaphore for each of *limits*, by task name."""
    return {
        name: Semaphore(limit, max_value=limit, fast_acquire=True) for name, limit in limits.items()
    }


class SharedSemaphores(dict[str, Semaphore]):
    """
    The semaphores of *limits*, shared by the runs of one event loop that overlap.

    Attributes:
        limits: As given; kept, so that no other object gets its identity meanwhile.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        super().__init__(make_semaphores(limits))
        self.limits = limits


# Of each event loop, by the identity of the limits. A semaphore cannot be used in two loops.
_shared: RunVar[WeakValueDictionary[int, SharedSemaphores]] = RunVar("antflow_shared_semaphores")


# The semaphores that the calling task, or one around it, has acquired.
_held: ContextVar[tuple[Semaphore, ...]] = ContextVar("antflow_held_semaphores", default=())


def share_semaphores(limits: Mapping[str, int]) -> SharedSemaphores:
    """
    Return the semaphores of this very object: the same as long as a run has them.

    A run that is started by a task that has acquired one of them gets others: it could wait for the
    task that waits for it.
    """
    try:
        shared = _shared.get()
    except LookupError:
        shared = WeakValueDictionary()
        _shared.set(shared)
    semaphores = shared.get(id(limits))
    if semaphores is None:
        semaphores = shared[id(limits)] = SharedSemaphores(limits)
    elif any(own is held for own in semaphores.values() for held in _held.get()):
        semaphores = SharedSemaphores(limits)
    return semaphores


async def acquire_all(semaphores: Sequence[Semaphore]) -> None:
    """
    Acquire all of *semaphores*; there must be at least one.

    Invariant: while this waits, it holds none of them. So it can neither deadlock nor hold a permit
    that it does not use, and if it is cancelled there is nothing to release.
    """
    order = list(semaphores)
    while True:
        await order[0].acquire()
        for index in range(1, len(order)):
            try:
                order[index].acquire_nowait()
            except WouldBlock:
                for held in order[:index]:
                    held.release()
                # Wait for the one that was not available.
                order.insert(0, order.pop(index))
                break
        else:
            return


def note_held(semaphores: Sequence[Semaphore]) -> Token[tuple[Semaphore, ...]]:
    """Note that the caller has acquired *semaphores*; `release_all` is given what this returns."""
    return _held.set((*_held.get(), *semaphores))


def release_all(
    semaphores: Sequence[Semaphore], token: Token[tuple[Semaphore, ...]] | None = None
) -> None:
    """Release all of *semaphores*."""
    if token is not None:
        # A coroutine that is dropped may be closed in another context.
        with suppress(ValueError):
            _held.reset(token)
    for semaphore in semaphores:
        semaphore.release()
