"""
Prints the utilization, load and errors of each worker. The items have ids of their own.

    python examples/worker_tracking.py [--backend asyncio|trio]
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from time import perf_counter

import anyio

from antflow import Item, Pipeline, Stage, StatusEvent, StatusTracker


async def download(size: int) -> int:
    await anyio.sleep(size / 1000)
    if size % 10 == 7:
        raise ConnectionError(f"connection lost after {size} bytes")
    return size


async def main() -> None:
    items_of: defaultdict[str, list[str]] = defaultdict(list)
    errors_of: Counter[str] = Counter()

    def on_status_change(event: StatusEvent) -> None:
        assert event.worker is not None or event.status == "queued"
        if event.status == "in_progress":
            items_of[str(event.worker)].append(event.item_id)
        elif event.status == "failed":
            errors_of[str(event.worker)] += 1

    pipeline = Pipeline(
        [Stage("Download", workers=4, tasks=[download], task_attempts=1)],
        status_tracker=StatusTracker(on_status_change),
    )
    sizes = [(37 * number) % 50 for number in range(60)]
    began = perf_counter()
    await pipeline.run(Item(size, id=f"file-{number}") for number, size in enumerate(sizes))
    seconds = perf_counter() - began

    print(f"{'worker':14} {'items':>5} {'busy':>5} {'errors':>6}  last item")
    for name, metrics in pipeline.get_worker_metrics().items():
        busy = metrics.total_processing_time / seconds
        last = items_of[name][-1] if items_of[name] else "-"
        print(f"{name:14} {len(items_of[name]):5} {busy:5.0%} {errors_of[name]:6}  {last}")
    counts = [len(items) for items in items_of.values()]
    print(f"The busiest worker had {max(counts)} items, the least busy one {min(counts)}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
