"""What grows with the number of items or workers: the tracker, and snapshots."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

from .by_hand import asyncio_queues
from .cases import Case, Comparison, Measured, Workload
from .moments import MANY
from .tasks import no_op

STAGES, WORKERS, WATCHED = 3, 8, 1_000


def as_measured(case: Case, measured: Measured) -> float:
    return measured["figure"]


def tracked(**options: Any) -> Any:
    from antflow import Pipeline, Stage, StatusTracker  # not installed where peers are

    stages = [Stage(f"Stage{index}", WORKERS, [no_op]) for index in range(STAGES)]
    tracker = StatusTracker(**options)
    return Pipeline(stages, collect_results=False, status_tracker=tracker)


def bytes_per_item(count: int, history: bool) -> float:
    """Return what a tracker keeps of each item, by `tracemalloc`."""
    pipeline = tracked(history=history)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    asyncio.run(pipeline.run(number for number in range(count)))
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    return (after - before) / count


def beside_queue(count: int, history: bool) -> float:
    """Return the CPU time of a run with a tracker over that of `asyncio.Queue` by hand."""
    by_hand = asyncio_queues([no_op] * STAGES, WORKERS)

    def cpu(start: Callable[[], Any]) -> float:
        gc.collect()
        began = time.process_time()
        asyncio.run(start())
        return time.process_time() - began

    asyncio.run(by_hand(1_000))
    ratios = []
    for _ in range(3):
        queue = cpu(lambda: by_hand(count))
        ratios.append(cpu(partial(tracked(history=history).run, range(count))) / queue)
    return statistics.median(ratios)


def longest_stall(count: int, history: bool) -> float:
    """Return the longest time, in ms of CPU, between two turns of another loop task."""
    pipeline = tracked(history=history)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now

    async def main() -> None:
        watcher = asyncio.create_task(watch())
        await pipeline.run(number for number in range(count))
        watcher.cancel()

    asyncio.run(main())
    return longest * 1e3


def milliseconds(function: Callable[[], Any]) -> float:
    times = []
    for _ in range(9):
        began = time.thread_time()
        function()
        times.append(time.thread_time() - began)
    return statistics.median(times) * 1e3


def rare_status(count: int, history: bool) -> float:
    """Return the time of the slowest question about a few of *count* items, in ms."""
    pipeline = tracked(history=history)
    tracker = pipeline.status_tracker

    async def main() -> None:
        await pipeline.run(range(count - WATCHED))

    asyncio.run(main())
    from antflow import StatusEvent

    for number in range(count - WATCHED, count):
        pipeline.events.publish(StatusEvent(number, "Stage0", "queued", None, 0.0))
    assert len(tracker.get_by_status("queued")) == WATCHED
    questions = (
        lambda: tracker.get_by_status("queued"),
        tracker.get_failed_items,
        tracker.get_error_summary,
        tracker.get_stats,
        tracker.get_tracked_ids,
    )
    return max(map(milliseconds, questions))


def snapshot(count: int, history: bool) -> float:
    """Return the time of a snapshot with *count* workers of which two were started, in ms."""
    from antflow import Pipeline, Stage

    pipeline = Pipeline([Stage("Stage", count, [no_op])])
    asyncio.run(pipeline.run([1]))
    return milliseconds(pipeline.get_dashboard_snapshot)


KINDS: dict[str, Callable[[int, bool], float]] = {
    function.__name__: function
    for function in (bytes_per_item, beside_queue, longest_stall, rare_status, snapshot)
}


def measure(case: Case, count: int, warm_up: int) -> Measured:
    figure = KINDS[case.options["kind"]](count, case.options.get("history", True))
    return {"cpu": None, "wall": None, "items": count, "figure": figure}


# By name: the kind, the number of items or workers, further options, and the highest figure.
ROWS: dict[str, tuple[str, int, dict[str, Any], float]] = {
    "tracker, bytes per item": ("bytes_per_item", 200_000, {}, 350),
    "tracker with history=False, bytes per item": (
        "bytes_per_item",
        200_000,
        {"history": False},
        150,
    ),
    "tracker, CPU × asyncio.Queue": ("beside_queue", 200_000, {}, 3),
    "tracker, longest stall, ms": ("longest_stall", MANY, {}, 50),
    "tracker, slowest question about 1,000 of 1 M items, ms": ("rare_status", MANY, {}, 5),
    "snapshot of 1 M workers, ms": ("snapshot", MANY, {}, 5),
}
SCALE = Workload(
    name="scale",
    title="A tracker of three stages × 8 workers, and a snapshot of a stage of a million workers",
    unit="see the row",
    figure=as_measured,
    measure="scale:measure",
    rounds=3,
    cases=tuple(
        Case(name, "", items, stages=STAGES, options={"kind": kind, **options})
        for name, (kind, items, options, _) in ROWS.items()
    ),
    comparisons=(Comparison("bound", None, {name: row[-1] for name, row in ROWS.items()}),),
    note="Bytes by tracemalloc; stalls and questions in CPU time of the thread.",
)
