"""The semaphores behind concurrency limits, by task name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anyio import Semaphore, WouldBlock


def make_semaphores(limits: Mapping[str, int]) -> dict[str, Semaphore]:
    """Return a semaphore for each of *limits*, by task name."""
    return {
        name: Semaphore(limit, max_value=limit, fast_acquire=True) for name, limit in limits.items()
    }


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


def release_all(semaphores: Sequence[Semaphore]) -> None:
    """Release all of *semaphores*."""
    for semaphore in semaphores:
        semaphore.release()
