"""
When the workers of a stage start and leave: a state machine without I/O.

Theory of operation
===================

A stage has up to ``Stage(workers=…)`` workers. The loop task of a worker is started only when the
worker is needed. So a run with few items never pays for a thousand workers, and idle workers do not
accumulate. The workers report to this machine what happens, and it answers how many workers to
start. It calls nothing and awaits nothing.

The cases, from the point of view of one worker:

1. It is *claimed*: it has the lowest number without a loop task, and gets one. It counts as idle
   until it begins.
2. It *began*: it looks for an item in the queue for the first time.
3. It *started waiting* for an item, and later *stopped waiting*. If a worker waits, no more workers
   are needed, so the next batch is one worker again.
4. It has *taken* an item. If no worker is idle then, and there are spare ones, a batch is started:
   one worker at first, then twice as many each time, until a worker has to wait or leaves. So a
   thousand workers are running after ten batches, and hardly one that is not needed.
5. It *became blocked*, because its item is finished and the next queue or the sink is full; later
   it *became unblocked*. A worker that is started while others are blocked stands by before it
   begins (see `StandBy`), because it would probably block on the same full queue.
6. It has *left*: it found no item while two others were idle, or the queue is closed, or the run is
   stopping.

Invariant: while the queue is open and the run is not stopping, at least one worker is idle, or all
workers of the stage have an item.
"""

from __future__ import annotations

import heapq

from attrs import define, field

# A worker that stands by yields this many times, and as often again if at least this many items
# were settled meanwhile.
_YIELDS_ON_STANDBY = 8
_ITEMS_ON_STANDBY = 64


@define(eq=False)
class Scaling:
    """
    How many workers of one stage have a loop task, and what these are doing.

    Args:
        workers: How many workers the stage may have.

    Attributes:
        spare: How many workers have no loop task.
        idle: How many wait for an item, or were started and have not begun.
        blocked: How many wait for room for the item that they have finished.
        unblocked: How often a worker has stopped waiting for room.
        next_batch: How many workers to start when one is needed.
    """

    workers: int
    spare: int = field(init=False)
    idle: int = field(default=0, init=False)
    blocked: int = field(default=0, init=False)
    unblocked: int = field(default=0, init=False)
    next_batch: int = field(default=1, init=False)
    # Workers with a number below this one have been started before.
    _ever_started: int = field(default=0, init=False)
    # The numbers of those that have left, as a heap.
    _free: list[int] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.spare = self.workers

    def claim(self) -> int:
        """Return the number of the worker to start next, from 0."""
        self.spare -= 1
        self.idle += 1
        if self._free:
            return heapq.heappop(self._free)
        self._ever_started += 1
        return self._ever_started - 1

    def began(self) -> None:
        """Note that a worker that was claimed or restarted looks for an item."""
        self.idle -= 1

    def started_waiting(self) -> None:
        """Note that a worker has found no item and waits for one."""
        self.next_batch = 1
        self.idle += 1

    def stopped_waiting(self) -> None:
        """Note that a worker waits for an item no longer."""
        self.idle -= 1

    def taken(self, queued: int) -> int:
        """
        Return how many workers to start: a worker has taken an item, and none is idle.

        There must be spare workers.

        Args:
            queued: How many items are waiting. Even if there are none, one worker is started, so
                that one is idle.
        """
        count = max(1, min(self.next_batch, self.spare, queued))
        self.next_batch *= 2
        return count

    def became_blocked(self) -> None:
        """Note that a worker waits for room for the item that it has finished."""
        self.blocked += 1

    def became_unblocked(self) -> None:
        """Note that a worker waits for room no longer."""
        self.blocked -= 1
        self.unblocked += 1

    def restarted(self) -> None:
        """Note that a worker continues in a new loop task."""
        self.idle += 1

    def left(self, number: int) -> bool:
        """Note that worker *number* has left; return whether it was the last one."""
        self.spare += 1
        self.next_batch = 1
        heapq.heappush(self._free, number)
        return self.spare == self.workers


class StandBy:
    """
    How long a worker that was started waits before it begins, while others are blocked.

    As long as items are settled, a worker that is unblocked processes as many items as there is
    room for in one step, and one more worker would only cost steps of its own. If no items are
    settled, the worker must begin, because the next stage may be waiting for exactly the item that
    it would take.

    Args:
        scaling: The scaling of the stage.
        settled: How many items of the run are settled so far.
    """

    def __init__(self, scaling: Scaling, settled: int) -> None:
        self._scaling = scaling
        self._yields = 0
        self._unblocked = scaling.unblocked
        self._settled = settled

    def should_wait(self, settled: int) -> bool:
        """Return whether to yield once more."""
        scaling = self._scaling
        if not scaling.blocked:
            return False
        if self._yields == _YIELDS_ON_STANDBY:
            # Both conditions, because the items that were settled may not have been at this stage.
            if scaling.unblocked == self._unblocked or settled - self._settled < _ITEMS_ON_STANDBY:
                return False
            self._yields, self._unblocked, self._settled = 0, scaling.unblocked, settled
        self._yields += 1
        return True
