"""
A live dashboard that is updated by callbacks.

    pip install -e '.[rich]'  # in a clone of antflow
    python examples/rich_callback_dashboard.py [--backend asyncio|trio]
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, deque

import anyio
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from antflow import Pipeline, Stage, StatusEvent, StatusTracker, TaskEvent

STAGES = ("Fetch", "Parse", "Save")
rng = random.Random(7)


async def work(number: int) -> int:
    await anyio.sleep(rng.uniform(0.001, 0.03))
    if rng.random() < 0.05:
        raise ConnectionError("connection lost")
    return number


class Dashboard:
    """Counts events and draws the counts."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.counts = {stage: Counter[str]() for stage in STAGES}
        self.latest: dict[object, StatusEvent] = {}
        self.messages: deque[str] = deque(maxlen=5)

    def on_status_change(self, event: StatusEvent) -> None:
        before = self.latest.get(event.item_id)
        if before is not None and before.stage == event.stage:
            self.counts[before.stage][before.status] -= 1
        self.counts[event.stage][event.status] += 1
        self.latest[event.item_id] = event
        if event.status == "failed":
            self.messages.append(
                f"[red]item {event.item_id} failed: {event.metadata['error']}[/red]"
            )
        self.live.update(self.draw())

    def on_task_retry(self, event: TaskEvent) -> None:
        self.messages.append(
            f"[yellow]item {event.item_id}, attempt {event.attempt} failed[/yellow]"
        )

    def draw(self) -> Group:
        table = Table(title="antflow, watched by callbacks", expand=True)
        for column in ("stage", "queued", "in progress", "completed", "failed"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        for stage, counts in self.counts.items():
            statuses = ("queued", "in_progress", "completed", "failed")
            table.add_row(stage, *(str(counts[status]) for status in statuses))
        return Group(table, Panel("\n".join(self.messages) or "no messages", title="messages"))


async def main() -> None:
    with Live(refresh_per_second=20) as live:
        dashboard = Dashboard(live)
        tracker = StatusTracker(
            dashboard.on_status_change, on_task_retry=dashboard.on_task_retry, history=False
        )
        stages = [
            Stage(name, workers, [work], task_attempts=2, task_wait_seconds=0.05)
            for name, workers in zip(STAGES, (8, 4, 2))
        ]
        await Pipeline(stages, status_tracker=tracker).run(range(80))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
