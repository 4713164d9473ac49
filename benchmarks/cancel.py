"""
The cost of cancelling a run of busy workers, compared with a bare task group of sleeping tasks.

All workers sleep forever, and then a scope around the run is cancelled. The CPU time from the
cancellation to the end of the run is compared with that of as many tasks in an anyio task group.
Rounds are interleaved. The set-up of each round is not measured.

    python benchmarks/cancel.py [--workers N] [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

import anyio

from antflow import Pipeline, Stage

BOUND = 2.0  # times the cost of the bare task group
Body = Callable[[int, Callable[[], Awaitable[None]]], Awaitable[Any]]


async def task_group(workers: int, sleep: Callable[[], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(workers):
            group.start_soon(sleep)


async def pipeline(workers: int, sleep: Callable[[], Awaitable[None]]) -> None:
    async def task(value: int) -> None:
        await sleep()

    await Pipeline([Stage("A", workers, [task])]).run(range(2 * workers))


def measure(body: Body, workers: int, backend: dict[str, Any]) -> float:
    """Return the CPU seconds from the cancellation of *workers* tasks to the end of *body*."""

    async def main() -> float:
        asleep = 0
        all_asleep = anyio.Event()
        started = 0.0

        async def sleep() -> None:
            nonlocal asleep
            asleep += 1
            if asleep == workers:
                all_asleep.set()
            await anyio.sleep_forever()

        async def cancel(scope: anyio.CancelScope) -> None:
            nonlocal started
            await all_asleep.wait()
            await anyio.lowlevel.checkpoint()
            gc.collect()
            started = time.process_time()
            scope.cancel()

        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                group.start_soon(cancel, scope)
                await body(workers, sleep)
            assert scope.cancelled_caught
            ended = time.process_time()
        return ended - started

    return anyio.run(main, **backend)


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of cancelling busy workers.")
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    backends: dict[str, dict[str, Any]] = {"asyncio": {"backend": "asyncio"}}
    if find_spec("uvloop"):
        backends["uvloop"] = {"backend": "asyncio", "backend_options": {"use_uvloop": True}}
    if find_spec("trio"):
        backends["trio"] = {"backend": "trio"}
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for name, backend in backends.items():
            for body in (task_group, pipeline):
                spent = measure(body, arguments.workers, backend)
                times.setdefault((name, body.__name__), []).append(spent)
    print(f"Cancelling {arguments.workers:,} busy workers, medians of CPU ms:\n")
    print("| backend | bare task group | antflow | ratio | bound |")
    print("|---|---|---|---|---|")
    for name in backends:
        bare, ours = (statistics.median(times[name, body]) for body in ("task_group", "pipeline"))
        print(
            f"| {name} | {bare * 1e3:.1f} | {ours * 1e3:.1f} | {ours / bare:.2f} | <= {BOUND:g} |"
        )


if __name__ == "__main__":
    main()
