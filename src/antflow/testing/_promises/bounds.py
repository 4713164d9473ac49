"""P4 and P5: who starts when, and how many are where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from itertools import takewhile

from attrs import define, field

from ..._model.describe import short_repr
from ..._model.events import StatusEvent
from .._equality import key_of
from .entries import Ended, Opened, Read, Taken
from .event_log import EventLog
from .violation import broken

P4 = "P4 FIFO"
P5 = "P5 bounded"


def check_first_in_first_out(log: EventLog) -> None:
    """A stage with one worker starts items in the order in which they were queued."""
    lines = {stage.name: _Line(log, stage.name) for stage in log.pipeline.stages}
    single = {stage.name for stage in log.pipeline.stages if stage.workers == 1}
    # By item: its priority, and who has it in hand or had it last. By hand: the line it went to.
    priorities: dict[Hashable, float] = {}
    hands: dict[Hashable, object] = {}
    sent: dict[object, tuple[_Line, Hashable]] = {}
    for now, entry in enumerate(log.entries):
        # A source that is stopped may leave its last item to wait for room.
        if isinstance(entry, Read) or (isinstance(entry, Ended) and not entry.early):
            _goes_on(entry.source, sent, now)
        if isinstance(entry, Read):
            key = key_of(entry.item_id)
            priorities[key] = entry.priority
            hands[key] = entry.source
        elif isinstance(entry, StatusEvent):
            key = key_of(entry.item_id)
            line = lines[entry.stage]
            if entry.status == "queued":
                line.queued[key] = now
                sent[hands.get(key)] = line, key
            elif entry.status == "in_progress":
                _goes_on(entry.worker, sent, now)
                if entry.stage in single:
                    line.start(entry, key, priorities)
                line.queued.pop(key, None)
            elif entry.status in ("completed", "skipped"):
                hands[key] = entry.worker


def _goes_on(hand: object, sent: dict[object, tuple[_Line, Hashable]], now: int) -> None:
    """What *hand* has sent is in its line by now."""
    if hand in sent:
        line, key = sent.pop(hand)
        line.sure.setdefault(key, now)


@define(eq=False)
class _Line:
    """
    Those that wait for their first start at one stage.

    An item that is retried by its stage has left the line: it is queued anew, without an event.

    Attributes:
        queued: By key, when its event came, in order.
        sure: When it was in the queue for sure: the event comes before an item is sent, and for
            lack of room it may stay in the hand of its sender, where those from other hands may
            overtake it. Once the sender goes on, it is in.
    """

    log: EventLog
    stage: str
    queued: dict[Hashable, int] = field(factory=dict, init=False)
    sure: dict[Hashable, int] = field(factory=dict, init=False)

    def start(self, event: StatusEvent, key: Hashable, priorities: dict[Hashable, float]) -> None:
        """Refuse that *event* starts an item before another whose turn it is."""
        if key not in self.queued:
            return
        arrival = self.queued[key]
        for other in takewhile(lambda other: other != key, self.queued):
            same = priorities.get(other) == priorities.get(key)
            if same and self.sure.get(other, arrival) < arrival:
                first = self.log.entries[self.queued[other]]
                assert isinstance(first, StatusEvent)
                name = short_repr(first.item_id)
                broken(
                    P4,
                    self.log,
                    event.item_id,
                    f"it started before item {name}, which was in the queue before it",
                    f"The one worker should have started item {name}; or, if their priorities "
                    f"differ, tell: log.source(items, priority=…)",
                    self.stage,
                )


class _Places:
    """How many items are where, event by event."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._stages = log.pipeline.stages
        self._number = {stage.name: number for number, stage in enumerate(self._stages)}
        self._room = sum(stage.workers + stage.capacity for stage in self._stages)
        # By stage: reached it and did not leave it; with a worker.
        self._here = [0] * len(self._stages)
        self._working = [0] * len(self._stages)
        self._status: dict[Hashable, str] = {}
        # How many sources there are; and may have an item in hand for which there is no room yet.
        self._opened = 0
        self._hands = 0
        # Stages into which a source feeds.
        self._fed: set[int] = set()
        self._counts: Counter[str] = Counter()

    def note(self, entry: object) -> None:
        """Go on by one entry."""
        if isinstance(entry, Opened):
            self._opened += 1
            self._hands += 1
        elif isinstance(entry, Ended):
            # The last item of a source that is stopped may still wait for room.
            self._hands -= not entry.early
        elif isinstance(entry, Taken):
            self._counts["taken"] += 1
        elif isinstance(entry, Read):
            self._counts["read"] += 1
            self._check_read_ahead(entry)
        elif isinstance(entry, StatusEvent):
            self._move(entry)

    def _move(self, event: StatusEvent) -> None:
        number = self._number[event.stage]
        key = key_of(event.item_id)
        before, self._status[key] = self._status.get(key), event.status
        if before == "in_progress":
            self._working[number] -= 1
        if event.status == "queued":
            if before is None:
                self._fed.add(number)
            self._here[number] += 1
        elif event.status == "in_progress":
            self._working[number] += 1
            self._check_workers(number, event)
            if number + 1 < len(self._stages):
                # What this worker had in hand has found room.
                self._check_queue(number + 1, event)
        elif event.status != "retrying":
            self._here[number] -= 1
            if event.status == "failed" or number + 1 == len(self._stages):
                self._counts["ended"] += 1
        self._check_queue(number, event)

    def _check_workers(self, number: int, event: StatusEvent) -> None:
        stage = self._stages[number]
        if self._working[number] > stage.workers:
            came = f"it is in progress as one of {self._working[number]}"
            instead = f"There should be at most {stage.workers}: the workers of the stage"
            broken(P5, self._log, event.item_id, came, instead, stage.name)

    def _check_queue(self, number: int, event: StatusEvent) -> None:
        """
        At most `capacity` wait, beside those that a sender or an idle worker has in hand.

        A worker may have been given an item, and not yet said so: so it is counted with those in
        progress. One that is done with an item may have it in hand for the next stage.
        """
        stage = self._stages[number]
        senders: float = 0
        if number:
            senders = self._stages[number - 1].workers - self._working[number - 1]
        if number in self._fed:
            if not self._opened:  # nobody knows how many sources there are
                return
            senders += self._hands
        most = stage.capacity + stage.workers + senders
        if self._here[number] > most:
            broken(
                P5,
                self._log,
                event.item_id,
                f"{self._here[number]} items are at the stage, {self._working[number]} of them in "
                f"progress",
                f"There should be at most {most}: queue_capacity {stage.capacity}, workers "
                f"{stage.workers}, and {senders} that may be in the hands of senders",
                stage.name,
            )

    def _check_read_ahead(self, read: Read) -> None:
        log = self._log
        under_way = self._counts["read"] - self._counts["ended"]
        most = self._room + self._hands
        what, why = "are under way", "workers and queues of all stages, and one per source"
        if under_way <= most and log.buffer_size is not None:
            under_way = self._counts["read"] - self._counts["taken"]
            what = "the consumer has not taken"
            if log.window is None:
                most += log.buffer_size
                why += ", and the buffer of the stream"
            else:
                most = log.window
                why = "the window of the stream"
        if under_way > most:
            came = f"it was read as one of {under_way} that {what}"
            broken(P5, log, read.item_id, came, f"At most {most} should be: {why}")


def check_bounds(log: EventLog) -> None:
    """No more items are in progress, waiting, or read ahead than there is room for."""
    places = _Places(log)
    for entry in log.entries:
        places.note(entry)
