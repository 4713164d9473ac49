"""
Prints task events: retried attempts, failed tasks, and the time that each task took.

    python examples/task_events.py [--backend asyncio|trio]
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import anyio

from antflow import Pipeline, Stage, StatusTracker, TaskEvent

calls: defaultdict[int, int] = defaultdict(int)


async def fetch(number: int) -> int:
    await anyio.sleep(0.005)
    calls[number] += 1
    if number % 4 == 1 and calls[number] < 2:
        raise ConnectionError("try again")
    return number


async def save_to_database(number: int) -> int:
    if number == 7:
        raise ValueError("a row with this key already exists")
    return number


def describe(event: TaskEvent) -> str:
    return f"{event.task_name} of item {event.item_id}, attempt {event.attempt}: {event.error}"


async def main() -> None:
    seconds: defaultdict[str, float] = defaultdict(float)

    async def on_task_complete(event: TaskEvent) -> None:
        seconds[event.task_name] += event.duration or 0.0

    async def on_task_retry(event: TaskEvent) -> None:
        print(f"retry {describe(event)}")

    async def on_task_fail(event: TaskEvent) -> None:
        print(f"FAILED {describe(event)}")
        if event.task_name == "save_to_database":
            print("  send an alert here")

    tracker = StatusTracker(
        on_task_complete=on_task_complete, on_task_retry=on_task_retry, on_task_fail=on_task_fail
    )
    stage = Stage(
        "ETL", workers=3, tasks=[fetch, save_to_database], task_attempts=3, task_wait_seconds=0.02
    )
    await Pipeline([stage], status_tracker=tracker).run(range(12))
    for name, total in seconds.items():
        print(f"{name:18} {total * 1000:6.1f} ms in all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
