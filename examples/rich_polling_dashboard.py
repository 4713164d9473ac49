"""
A live dashboard that polls the pipeline ten times a second.

    pip install -e '.[rich]'  # in a clone of antflow
    python examples/rich_polling_dashboard.py [--backend asyncio|trio]
"""

from __future__ import annotations

import argparse
import random

import anyio
from rich.console import Group
from rich.live import Live
from rich.table import Table

from antflow import DashboardSnapshot, Pipeline, Stage

rng = random.Random(7)


async def work(number: int) -> int:
    await anyio.sleep(rng.uniform(0.001, 0.03))
    if rng.random() < 0.05:
        raise ConnectionError("connection lost")
    return number


def draw(snapshot: DashboardSnapshot) -> Group:
    stats = snapshot.pipeline_stats
    stages = Table(
        title=f"antflow, polled: {stats.items_processed} done, {stats.items_failed} failed, "
        f"{stats.items_in_flight} in flight",
        expand=True,
    )
    for column in ("stage", "waiting", "in progress", "completed", "failed"):
        stages.add_column(column, justify="left" if column == "stage" else "right")
    for stage in stats.stage_stats.values():
        stages.add_row(
            stage.stage_name,
            str(stage.pending_items),
            str(stage.in_progress_items),
            str(stage.completed_items),
            str(stage.failed_items),
        )
    workers = Table(expand=True)
    for column in ("worker", "status", "item", "processed", "average"):
        workers.add_column(column)
    for name, state in snapshot.worker_states.items():
        metrics = snapshot.worker_metrics[name]
        workers.add_row(
            name,
            f"[green]{state.status}[/green]" if state.status == "busy" else state.status,
            "" if state.current_item_id is None else str(state.current_item_id),
            str(metrics.items_processed),
            f"{metrics.avg_processing_time * 1000:.0f} ms",
        )
    return Group(stages, workers)


async def main() -> None:
    pipeline = Pipeline(
        [
            Stage(name, workers, [work], task_attempts=2, task_wait_seconds=0.05)
            for name, workers in (("Fetch", 5), ("Parse", 3), ("Save", 2))
        ]
    )
    with Live(auto_refresh=False) as live:

        async def monitor() -> None:
            while True:
                live.update(draw(pipeline.get_dashboard_snapshot()), refresh=True)
                await anyio.sleep(0.1)

        async with anyio.create_task_group() as group:
            group.start_soon(monitor)
            await pipeline.run(range(80))
            group.cancel_scope.cancel()
        live.update(draw(pipeline.get_dashboard_snapshot()), refresh=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
