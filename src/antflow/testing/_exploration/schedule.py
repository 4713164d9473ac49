"""Which of the tasks that can run makes the next step: the decisions, and the queue that obeys."""

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
    One departure from the plain order, in which the task that can run for longest goes first.

    A step is what a task does between two points at which it lets others run.

    Args:
        step: When: after so many steps of all tasks together.
        pick: Which of the tasks that can run is meant: 0 for the first in the plain order;
            counting goes on with the first after the last.
        pause: If 0, that task goes next. Else it is held back while the loop runs this many other
            steps and callbacks; when there are no others, the clock jumps from timer to timer, each
            of which counts as one; when there are none of these either, it goes on.
    """

    step: int = attr(validator=_not_negative)
    pick: int = attr(default=0, validator=_not_negative)
    pause: int = attr(default=0, validator=_not_negative)


def random_schedule(
    seed: int, *, gap: int = 8, pick: int = 8, pause: int = 40
) -> Iterator[Decision]:
    """
    Give decisions without end, the same ones for the same *seed* on every Python.

    Args:
        seed: Where to begin.
        gap: How many steps are between two decisions, on average.
        pick: The highest `Decision.pick`.
        pause: The highest `Decision.pause`; every other decision pauses a task.
    """
    # Of the methods of Random, this is the one whose outcome no version changes.
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

    A test that fails under one of them is shown with the few decisions that matter.

    Args:
        most: The highest number of decisions.
        gap: The most steps between two of them.
        pick: The highest `Decision.pick`.
        pause: The highest `Decision.pause`.
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
    A step that a task can make.

    Tasks that the same step made ready have no order among each other (often they come out of a
    set): the older one goes first, so that the same decisions always lead to the same run.
    """

    since: int
    number: int
    arrival: int
    item: Any = attr(order=False)


class ReadyQueue:
    """
    What can run in an event loop, given one by one, in the order that a schedule asks for.

    It stands in for the deque in which a loop keeps this. Callbacks keep their place: a step of a
    task goes before one that was there later, unless it is held back.

    Args:
        task_of: Returns the task of an item whose step it is, or None for any other callback.
        schedule: The decisions, by rising steps.
        before_step: Called with the number of steps so far, each time before one is made.

    Attributes:
        steps: How many steps were made so far.
        ticks: The same, with the callbacks in between.
        decisions: Those decisions whose time came.
        trace: For each step the number of the task that made it, in order of their first one.
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
        self._newcomers = itertools.count()
        self._arrivals = itertools.count()
        # In order of arrival: what came later than the first callback, that included.
        self._later: deque[tuple[_Entry | None, Any]] = deque()
        # What came before that: the choice.
        self._ready: list[_Entry] = []
        # By the tick at which they come back.
        self._held: list[tuple[int, _Entry]] = []

    def __len__(self) -> int:
        # The loops run so many items before they look for new ones.
        due = self._held and self._held[0][0] <= self.ticks
        return 1 if self._ready or self._later or due else 0

    def append(self, item: Any) -> None:
        """Say that *item* can run."""
        task = self._task_of(item)
        entry = None
        if task is not None:
            number = self._numbers.get(task)
            if number is None:
                number = self._numbers[task] = next(self._newcomers)
            entry = _Entry(self.ticks, number, next(self._arrivals), item)
        self._later.append((entry, item))

    def popleft(self) -> Any:
        """Return what runs next, or None if all that can run is held back."""
        self.ticks += 1
        while True:
            while self._later and (entry := self._later[0][0]) is not None:
                insort(self._ready, entry)
                self._later.popleft()
            while self._held and self._held[0][0] <= self.ticks:
                insort(self._ready, heapq.heappop(self._held)[1])
            if not self._ready:
                return self._later.popleft()[1] if self._later else None
            self._before_step(self.steps)
            entry = self._choose()
            if entry is not None:
                self.steps += 1
                self.trace.append(entry.number)
                return entry.item

    def let_go(self, *, wait: bool) -> bool:
        """
        Have those back that were held, since nothing else can run.

        Args:
            wait: Whether there is something to wait for: then only if their time has come.

        Returns:
            Whether there are any.
        """
        if not self._held:
            return False
        self.ticks = self.ticks + 1 if wait else max(self.ticks, self._held[0][0])
        return self._held[0][0] <= self.ticks

    def _choose(self) -> _Entry | None:
        """Return whose turn it is, or None if that one is held back."""
        decision = self._decision
        while decision is not None and decision.step < self.steps:
            # Its step was taken by the one before.
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
        """Forget all: the loop is closed."""
        self._later.clear()
        self._ready.clear()
        self._held.clear()
