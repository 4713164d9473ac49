"""
antflow on asyncio compared with asyncio.Queue, in one process, in seconds.

    python -m benchmarks --quick [--rounds N]

For a quick comparison while the engine is changed. The rounds are interleaved in one process, so
the ratio is stable, but the contenders share the state of that process.
"""

from __future__ import annotations

import gc
import statistics
import time

from .cases import Case
from .measures import check, prepare, start_loop
from .throughput import NO_OP, QUEUE

ITEMS = 10_000
ROUNDS = 15
NAMES = (QUEUE.name, "antflow, asyncio", "antflow with StatusTracker, asyncio")


def measure(case: Case) -> float:
    """Return the CPU microseconds per item and stage."""
    run = prepare(case, ITEMS)
    gc.collect()
    began = time.process_time()
    results = start_loop(case, run, ITEMS)
    seconds = time.process_time() - began
    check(case, ITEMS, results)
    return seconds * 1e6 / (ITEMS * case.stages)


def main(rounds: int | None) -> None:
    figures: dict[str, list[float]] = {name: [] for name in NAMES}
    for number in range((rounds or ROUNDS) + 1):
        for name, values in figures.items():
            value = measure(NO_OP.case(name))
            if number:  # the first round warms up
                values.append(value)
    base = statistics.median(figures[QUEUE.name])
    print(f"{'CPU µs per item-stage':40} {'median':>8} {'lowest':>8} {'ratio':>8}")
    for name, values in figures.items():
        middle = statistics.median(values)
        print(f"{name:40} {middle:8.2f} {min(values):8.2f} {middle / base:6.2f} ×")
