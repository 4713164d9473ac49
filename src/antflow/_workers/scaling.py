"""
When the workers of a stage start and leave: a state machine without I/O.

Theory of operation
===================

A stage may have *workers* workers, and starts a loop task for one only when it is needed. So a run
with few items never pays for a thousand workers, and idle workers do not accumulate. The machine is
told what happens, and answers how many workers to start. It calls nothing and awaits nothing.

The cases, from the point of view of one worker:

1. It is *claimed*: it gets a loop task, under the lowest free number. From then on it counts as
   idle, until it has looked into the queue.
2. It *begins*: it looks into the queue for the first time.
3. It *waits* for an item, and *resumes* when there is one. While somebody waits, no more are
   needed: the next start begins with one worker again.
4. It has *taken* an item. If nobody is idle then, and there are spare workers, more are started:
   one at first, and twice as many each time that all who were started found an item. So a thousand
   workers are there after ten steps, and hardly one that is not needed.
5. It is *blocked*: its item is finished and the queue of the next stage is full; then *unblocked*.
   A worker that was claimed meanwhile stands by before it begins (see `StandBy`), because it would
   only block on the same full queue.
6. It has *left*: it found nothing while two others were idle, or the queue is closed.

Invariant: while the queue is open, one worker is idle, or all workers of the stage have an item.
"""

from __future__ import annotations

import heapq

from attrs import define, field

# A worker that stands by waits for so many turns of the loop, and for as many again if at least so
# many items were settled meanwhile.
_TURNS_ON_STANDBY = 8
_ITEMS_ON_STANDBY = 64


@define(eq=False)
class Scaling:
    """
    How many workers of one stage have a loop task, and what these are doing.

    Args:
        workers: How many there may be.

    Attributes:
        spare: How many have no loop task at present.
        idle: How many wait for an item, or were started and have not looked for one yet.
        blocked: How many wait until there is room for the item that they have finished.
        unblocked: How often one has stopped waiting for that.
        next_batch: How many to start at the next need.
    """

    workers: int
    spare: int = field(init=False)
    idle: int = field(default=0, init=False)
    blocked: int = field(default=0, init=False)
    unblocked: int = field(default=0, init=False)
    next_batch: int = field(default=1, init=False)
    # Workers that were started before: the numbers below this one.
    _known: int = field(default=0, init=False)
    # Of these, the numbers of those without a loop task, as a heap.
    _free: list[int] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.spare = self.workers

    def claim(self) -> int:
        """Return the number of the worker to start next, from 0."""
        self.spare -= 1
        self.idle += 1
        if self._free:
            return heapq.heappop(self._free)
        self._known += 1
        return self._known - 1

    def begins(self) -> None:
        """A worker that was claimed or restarted looks into the queue."""
        self.idle -= 1

    def waits(self) -> None:
        """A worker has found no item and waits for one."""
        self.next_batch = 1
        self.idle += 1

    def resumes(self) -> None:
        """A worker waits no longer."""
        self.idle -= 1

    def taken(self, queued: int) -> int:
        """
        Return how many workers to start, since one has taken an item and nobody is idle.

        Only to be called if there are spare workers.

        Args:
            queued: How many items wait at this instant. If it is 0, one worker is started all the
                same, so that somebody is idle.
        """
        count = max(1, min(self.next_batch, self.spare, queued))
        self.next_batch *= 2
        return count

    def is_blocked(self) -> None:
        """A worker waits until there is room for the item that it has finished."""
        self.blocked += 1

    def is_unblocked(self) -> None:
        """A worker waits for room no longer."""
        self.blocked -= 1
        self.unblocked += 1

    def restarted(self) -> None:
        """A worker continues in a new loop task."""
        self.idle += 1

    def left(self, number: int) -> bool:
        """Worker *number* has no loop task any more; return whether it was the last one."""
        self.spare += 1
        self.next_batch = 1
        heapq.heappush(self._free, number)
        return self.spare == self.workers


class StandBy:
    """
    How long a worker that was started waits before it begins, while others are blocked.

    As long as items are settled, each worker that is unblocked takes as many items as there is room
    for in one turn of the loop, while one more worker would cost a turn of its own. If no items are
    settled it must begin, because the next stage may wait for just the item that it would take.

    Args:
        scaling: The machine of the stage.
        settled: How many items of the run are settled so far.
    """

    def __init__(self, scaling: Scaling, settled: int) -> None:
        self._scaling = scaling
        self._turns = 0
        self._unblocked = scaling.unblocked
        self._settled = settled

    def goes_on(self, settled: int) -> bool:
        """Return whether to wait for another turn of the loop."""
        scaling = self._scaling
        if not scaling.blocked:
            return False
        if self._turns == _TURNS_ON_STANDBY:
            # Both: items may be settled that never were at this stage.
            if scaling.unblocked == self._unblocked or settled - self._settled < _ITEMS_ON_STANDBY:
                return False
            self._turns, self._unblocked, self._settled = 0, scaling.unblocked, settled
        self._turns += 1
        return True
