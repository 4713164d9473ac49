"""P4 and P5: the order in which items start, and how many items are at each place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from itertools import takewhile

from attrs import define, field

from ..._model.describe import short_repr
from ..._model.events import StatusEvent
from .._equality import equality_key
from .entries import Ended, Opened, Read, Taken
from .event_log import EventLog
from .violation import raise_violation

P4 = "P4 FIFO"
P5 = "P5 bounded"


def check_fifo(log: EventLog) -> None:
    """Check that a stage with one worker starts items in the order in which they were queued."""
    queues = {stage.name: _StageQueue(log, stage.name) for stage in log.pipeline.stages}
    single = {stage.name for stage in log.pipeline.stages if stage.workers == 1}
    priorities: dict[Hashable, float] = {}
    # The sender of each item: the number of its source, or the worker that finished it last.
    senders: dict[Hashable, object] = {}
    # The item that each sender sent last, and the queue to which it was sent.
    sent: dict[object, tuple[_StageQueue, Hashable]] = {}
    for now, entry in enumerate(log.entries):
        # After an early end, the last item of the source may still wait for space.
        if isinstance(entry, Read) or (isinstance(entry, Ended) and not entry.early):
            _confirm_sent(entry.source, sent, now)
        if isinstance(entry, Read):
            key = equality_key(entry.item_id)
            priorities[key] = entry.priority
            senders[key] = entry.source
        elif isinstance(entry, StatusEvent):
            key = equality_key(entry.item_id)
            queue = queues[entry.stage]
            if entry.status == "queued":
                queue.queued[key] = now
                sent[senders.get(key)] = queue, key
            elif entry.status == "in_progress":
                _confirm_sent(entry.worker, sent, now)
                if entry.stage in single:
                    queue.check_start(entry, key, priorities)
                queue.queued.pop(key, None)
            elif entry.status in ("completed", "skipped"):
                senders[key] = entry.worker


def _confirm_sent(
    sender: object, sent: dict[object, tuple[_StageQueue, Hashable]], now: int
) -> None:
    """Note that *sender* moved on, so the item that it sent last is in its queue."""
    if sender in sent:
        queue, key = sent.pop(sender)
        queue.confirmed.setdefault(key, now)


@define(eq=False)
class _StageQueue:
    """
    The items that wait for their first start at one stage.

    "queued" is published before an item is sent. If the queue is full, the sender waits for space,
    and items of other senders may overtake. So an item is known to be in the queue only when its
    sender has moved on to the next item. A per-stage retry is not tracked, since no event says when
    it enters the queue again.

    Attributes:
        log: The log.
        stage: The name of the stage.
        queued: The index of the "queued" event of each waiting item, by equality key, in order.
        confirmed: The index of the entry at which an item was first known to be in the queue.
    """

    log: EventLog
    stage: str
    queued: dict[Hashable, int] = field(factory=dict, init=False)
    confirmed: dict[Hashable, int] = field(factory=dict, init=False)

    def check_start(
        self, event: StatusEvent, key: Hashable, priorities: dict[Hashable, float]
    ) -> None:
        """Check that no waiting item was in the queue before the one that *event* starts."""
        if key not in self.queued:
            return
        arrival = self.queued[key]
        for other in takewhile(lambda other: other != key, self.queued):
            equal = priorities.get(other) == priorities.get(key)
            if equal and self.confirmed.get(other, arrival) < arrival:
                first = self.log.entries[self.queued[other]]
                assert isinstance(first, StatusEvent)
                name = short_repr(first.item_id)
                raise_violation(
                    P4,
                    self.log,
                    event.item_id,
                    f"it started before item {name}, which was in the queue before it",
                    f"Expected the only worker to start item {name} first. If the items have "
                    f"different priorities, write log.source(items, priority=…)",
                    self.stage,
                )


class _Occupancy:
    """
    How many items are at each stage, in progress, and read ahead, entry by entry.

    Args:
        log: The log.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._stages = log.pipeline.stages
        self._index = {stage.name: index for index, stage in enumerate(self._stages)}
        self._total_capacity = sum(stage.workers + stage.capacity for stage in self._stages)
        # By the index of the stage: items that were queued there and have not ended there.
        self._at_stage = [0] * len(self._stages)
        self._in_progress = [0] * len(self._stages)
        self._status: dict[Hashable, str] = {}
        self._opened_sources = 0
        # Sources that may hold an item for which there is no space yet.
        self._sending_sources = 0
        # The indices of the stages that are fed by a source.
        self._fed: set[int] = set()
        # "read", "ended" and "taken" items.
        self._counts: Counter[str] = Counter()

    def add(self, entry: object) -> None:
        """Count one entry, and check the bounds that it affects."""
        if isinstance(entry, Opened):
            self._opened_sources += 1
            self._sending_sources += 1
        elif isinstance(entry, Ended):
            # After an early end, the last item of the source may still wait for space.
            self._sending_sources -= not entry.early
        elif isinstance(entry, Taken):
            self._counts["taken"] += 1
        elif isinstance(entry, Read):
            self._counts["read"] += 1
            self._check_read_ahead(entry)
        elif isinstance(entry, StatusEvent):
            self._add_status(entry)

    def _add_status(self, event: StatusEvent) -> None:
        index = self._index[event.stage]
        key = equality_key(event.item_id)
        before, self._status[key] = self._status.get(key), event.status
        if before == "in_progress":
            self._in_progress[index] -= 1
        if event.status == "queued":
            if before is None:
                self._fed.add(index)
            self._at_stage[index] += 1
        elif event.status == "in_progress":
            self._in_progress[index] += 1
            self._check_workers(index, event)
            if index + 1 < len(self._stages):
                # A worker that starts an item has sent its previous one to the next queue.
                self._check_queue(index + 1, event)
        elif event.status != "retrying":
            self._at_stage[index] -= 1
            if event.status == "failed" or index + 1 == len(self._stages):
                self._counts["ended"] += 1
        self._check_queue(index, event)

    def _check_workers(self, index: int, event: StatusEvent) -> None:
        stage = self._stages[index]
        if self._in_progress[index] > stage.workers:
            observed = f"it is one of {self._in_progress[index]} items in progress"
            expected = f"Expected at most {stage.workers}, the number of workers"
            raise_violation(P5, self._log, event.item_id, observed, expected, stage.name)

    def _check_queue(self, index: int, event: StatusEvent) -> None:
        """
        Check that no more items are at a stage than its queue, workers and senders can hold.

        A worker may have taken an item out of the queue before "in_progress" is published, so each
        worker counts for one item. A worker of the previous stage that is not processing an item
        may be sending one, and so may each source that feeds this stage.
        """
        stage = self._stages[index]
        senders: float = 0
        if index:
            senders = self._stages[index - 1].workers - self._in_progress[index - 1]
        if index in self._fed:
            # The number of senders is unknown if the sources were not recorded.
            if not self._opened_sources:
                return
            senders += self._sending_sources
        bound = stage.capacity + stage.workers + senders
        if self._at_stage[index] > bound:
            raise_violation(
                P5,
                self._log,
                event.item_id,
                f"{self._at_stage[index]} items are at the stage, {self._in_progress[index]} of "
                f"them in progress",
                f"Expected at most {bound}: queue_capacity {stage.capacity}, workers "
                f"{stage.workers}, and {senders} that senders may hold",
                stage.name,
            )

    def _check_read_ahead(self, read: Read) -> None:
        log = self._log
        pending = self._counts["read"] - self._counts["ended"]
        bound = self._total_capacity + self._sending_sources
        kind, reason = "unfinished items", "the workers and queues of all stages, one per source"
        if pending <= bound and log.buffer_size is not None:
            pending = self._counts["read"] - self._counts["taken"]
            kind = "items that the consumer has not taken"
            if log.window is None:
                bound += log.buffer_size
                reason += ", and the buffer of the stream"
            else:
                bound = log.window
                reason = "the window of the stream"
        if pending > bound:
            observed = f"it was read as one of {pending} {kind}"
            expected = f"Expected at most {bound}: {reason}"
            raise_violation(P5, log, read.item_id, observed, expected)


def check_bounds(log: EventLog) -> None:
    """Check that no more items are in progress, waiting or read ahead than is allowed."""
    occupancy = _Occupancy(log)
    for entry in log.entries:
        occupancy.add(entry)
