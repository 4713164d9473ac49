"""Schedules: decisions about which task makes the next step, and the queue that follows them."""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from attrs import field as attr
from attrs import frozen, validators

_not_negative = [validators.instance_of(int), validators.ge(0)]


@frozen
class Decision:
    """
    One departure from the default order, in which tasks run first come, first served.

    A step is what a task does between two points at which it yields to the event loop. A task that
    can make its next step is ready.

    Args:
        step: The decision applies after this many steps of all tasks together.
        pick: The position of a task in the default order of the ready tasks, from 0, modulo their
            number. Default 0.
        pause: With 0, the picked task makes the next step. Otherwise it is held back while the loop
            runs this many other steps and callbacks. If there are no others, the clock jumps from
            timer to timer, each of which counts as one. If there is no timer either, the task
            continues at once. Default 0.

    Raises:
        ValueError: A value is negative.
        TypeError: A value is not an int.
    """

    step: int = attr(validator=_not_negative)
    pick: int = attr(default=0, validator=_not_negative)
    pause: int = attr(default=0, validator=_not_negative)


def random_schedule(
    seed: int, *, gap: int = 8, pick: int = 8, pause: int = 40
) -> Iterator[Decision]:
    """
    Yield random decisions without end, the same ones for the same *seed* on every Python version.

    Args:
        seed: The seed of the random numbers.
        gap: About the mean number of steps between two decisions. Default 8.
        pick: The largest `Decision.pick`. Default 8.
        pause: The largest `Decision.pause`; about every other decision pauses a task. Default 40.
    """
    # random() is the only method of Random whose results are the same in all versions of Python.
    draw = random.Random(seed).random
    step = 0
    while True:
        step += int(draw() * 2 * gap)
        which = int(draw() * (pick + 1))
        held = int(draw() * 2) * int(draw() * (pause + 1))
        yield Decision(step, which, held)


def schedules(*, most: int = 30, gap: int = 12, pick: int = 6, pause: int = 40) -> Any:
    """
    Return a hypothesis strategy for schedules: lists of decisions.

    For a test that fails, hypothesis shrinks the schedule to the few decisions that matter.

    Args:
        most: The largest number of decisions. Default 30.
        gap: The largest number of steps between two decisions. Default 12.
        pick: The largest `Decision.pick`. Default 6.
        pause: The largest `Decision.pause`. Default 40.

    Raises:
        ImportError: hypothesis is not installed.
    """
    from hypothesis import strategies as st

    decision = st.tuples(
        st.integers(0, gap), st.integers(0, pick), st.just(0) | st.integers(0, pause)
    )
    few = st.lists(decision, max_size=min(most, 8))
    many = st.lists(decision, min_size=min(most, 8), max_size=most)

    @st.composite
    def schedule(draw: st.DrawFn) -> list[Decision]:
        drawn = draw(few | many)
        steps = itertools.accumulate(gap for gap, _, _ in drawn)
        return [Decision(step, pick, pause) for step, (_, pick, pause) in zip(steps, drawn)]

    return schedule()


@frozen(order=True)
class _Entry:
    """
    A ready task, which sorts by the default order.

    Tasks that became ready in the same tick often come out of a set, in no defined order. They sort
    by their number, so that the same decisions always lead to the same run.

    Attributes:
        since: The tick at which the task became ready.
        number: The number of the task, in the order in which tasks were first ready.
        arrival: The number of the entry.
        item: What the loop put into the queue.
    """

    since: int
    number: int
    arrival: int
    item: Any = attr(order=False)


class ReadyQueue:
    """
    The steps and callbacks that an event loop can run, in the order that a schedule asks for.

    It takes the place of the loop's own deque of them. A callback keeps its position: the ready
    tasks from which a decision picks are those in front of the first callback. So a step runs
    before each callback that came later, unless its task is held back.

    Args:
        task_of: Returns the task whose step an item is, or None if the item is a callback.
        schedule: The decisions, by rising `Decision.step`.
        before_step: Called before each step with the number of steps so far.

    Attributes:
        steps: The number of steps so far.
        ticks: The time in which pauses are measured. It rises by one with each step, callback,
            timer, and start of a pause. It jumps to the end of a pause if only held tasks remain.
        decisions: The decisions that were applied.
        trace: The number of the task of each step. Tasks are numbered from 0, in the order in which
            they were first ready.
    """

    def __init__(
        self,
        task_of: Callable[[Any], Any],
        schedule: Iterable[Decision],
        before_step: Callable[[int], None],
    ) -> None:
        self.steps = 0
        self.ticks = 0
        self.decisions: list[Decision] = []
        self.trace: list[int] = []
        self._task_of = task_of
        self._schedule = iter(schedule)
        self._decision = next(self._schedule, None)
        self._before_step = before_step
        self._numbers: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._new_numbers = itertools.count()
        self._arrivals = itertools.count()
        # The first callback and all items behind it, in order of arrival. No entry: a callback.
        self._waiting: deque[tuple[_Entry | None, Any]] = deque()
        # The ready tasks in front of the first callback, sorted. A decision picks among these.
        self._ready: list[_Entry] = []
        # A heap of the tasks that are held back, by the tick at which they are ready again.
        self._held: list[tuple[int, _Entry]] = []

    def __len__(self) -> int:
        # The loop runs as many items as this says before it polls for events: one at a time.
        due = self._held and self._held[0][0] <= self.ticks
        return 1 if self._ready or self._waiting or due else 0

    def append(self, item: Any) -> None:
        """Add an item, which can run now."""
        task = self._task_of(item)
        entry = None
        if task is not None:
            number = self._numbers.get(task)
            if number is None:
                number = self._numbers[task] = next(self._new_numbers)
            entry = _Entry(self.ticks, number, next(self._arrivals), item)
        self._waiting.append((entry, item))

    def popleft(self) -> Any:
        """Return the item that runs next, or None if all ready tasks are held back."""
        self.ticks += 1
        while True:
            while self._waiting and (entry := self._waiting[0][0]) is not None:
                insort(self._ready, entry)
                self._waiting.popleft()
            while self._held and self._held[0][0] <= self.ticks:
                insort(self._ready, heapq.heappop(self._held)[1])
            if not self._ready:
                return self._waiting.popleft()[1] if self._waiting else None
            self._before_step(self.steps)
            entry = self._choose()
            if entry is not None:
                self.steps += 1
                self.trace.append(entry.number)
                return entry.item

    def release_held(self, *, wait: bool) -> bool:
        """
        Release held tasks when nothing else can run.

        Args:
            wait: Whether the loop can wait for a timer instead. If so, this counts as one tick, and
                only tasks whose pause is over are released. If not, the next held task is released.

        Returns:
            Whether a task was released.
        """
        if not self._held:
            return False
        self.ticks = self.ticks + 1 if wait else max(self.ticks, self._held[0][0])
        return self._held[0][0] <= self.ticks

    def _choose(self) -> _Entry | None:
        """Return the entry of the next step, or None if the picked task is held back."""
        decision = self._decision
        while decision is not None and decision.step < self.steps:
            # An earlier decision for the same step has been applied.
            self._decision = decision = next(self._schedule, None)
        if decision is None or decision.step > self.steps:
            return self._ready.pop(0)
        self._decision = next(self._schedule, None)
        self.decisions.append(decision)
        entry = self._ready.pop(decision.pick % len(self._ready))
        if not decision.pause:
            return entry
        heapq.heappush(self._held, (self.ticks + decision.pause, entry))
        return None

    def clear(self) -> None:
        """Remove all items. Called when the loop is closed."""
        self._waiting.clear()
        self._ready.clear()
        self._held.clear()
