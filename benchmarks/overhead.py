"""
What antflow costs per item and stage, beside what one would write by hand.

Three stages of eight workers whose tasks do nothing, so that all the time is overhead. Every
contender does the same work, its results are checked, and the rounds are interleaved, so that a
change in the speed of the machine meets all of them alike. Look at the ratios: CPU time in
microseconds differs from machine to machine. The second table compares `stream()` with `run()` on
the same backend.

    python benchmarks/overhead.py [--items N] [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import anyio

from antflow import Pipeline, Stage, StatusTracker

STAGES = 3
WORKERS = 8
BUFFER = 64
STREAM_BOUND = 1.5  # times what run() costs


async def no_op(value: Any) -> Any:
    return value


async def sequential(count: int) -> list[Any]:
    """No pipeline at all: the floor."""
    results = []
    for value in range(count):
        for _ in range(STAGES):
            value = await no_op(value)
        results.append(value)
    return results


async def anyio_streams(count: int) -> list[Any]:
    """The pattern of the anyio manual: workers that iterate over a stream and send to the next."""
    results: list[Any] = []

    async def worker(receive: Any, send: Any) -> None:
        async with receive, send:
            async for value in receive:
                await send.send(await no_op(value))

    async def feed(send: Any) -> None:
        async with send:
            for value in range(count):
                await send.send(value)

    async with anyio.create_task_group() as group:
        send, receive = anyio.create_memory_object_stream[Any](BUFFER)
        group.start_soon(feed, send)
        for _ in range(STAGES):
            next_send, next_receive = anyio.create_memory_object_stream[Any](BUFFER)
            for _ in range(WORKERS):
                group.start_soon(worker, receive.clone(), next_send.clone())
            receive.close()
            next_send.close()
            receive = next_receive
        async with receive:
            async for value in receive:
                results.append(value)
    return sorted(results)


async def asyncio_queues(count: int) -> list[Any]:
    """Queues and a sentinel for each worker, as one writes it by hand on asyncio."""
    done = object()
    queues = [asyncio.Queue[Any](BUFFER) for _ in range(STAGES)]
    results: list[Any] = [None] * count

    async def worker(index: int) -> None:
        queue = queues[index]
        following = queues[index + 1] if index + 1 < STAGES else None
        while (item := await queue.get()) is not done:
            number, value = item
            value = await no_op(value)
            if following is None:
                results[number] = value
            else:
                await following.put((number, value))

    pools = [
        [asyncio.create_task(worker(index)) for _ in range(WORKERS)] for index in range(STAGES)
    ]
    for item in enumerate(range(count)):
        await queues[0].put(item)
    for queue, pool in zip(queues, pools):
        for _ in pool:
            await queue.put(done)
        await asyncio.gather(*pool)
    return results


def antflow_pipeline(tracker: StatusTracker | None = None) -> Pipeline:
    return Pipeline(
        [Stage(f"Stage{index}", WORKERS, [no_op]) for index in range(STAGES)],
        status_tracker=tracker,
    )


def antflow(tracker: StatusTracker | None = None) -> Callable[[int], Any]:
    pipeline = antflow_pipeline(tracker)

    async def run(count: int) -> list[Any]:
        if tracker is not None:
            tracker.clear()
        return (await pipeline.run(range(count))).values

    return run


def antflow_stream(*, ordered: bool) -> Callable[[int], Any]:
    pipeline = antflow_pipeline()

    async def run(count: int) -> list[Any]:
        async with pipeline.stream(range(count), ordered=ordered) as stream:
            values = [result.value async for result in stream]
        return values if ordered else sorted(values)

    return run


def contenders() -> dict[str, tuple[Callable[[int], Any], dict[str, Any]]]:
    on_asyncio: dict[str, Any] = {"backend": "asyncio"}
    backends = {"asyncio": on_asyncio}
    if find_spec("uvloop"):
        backends["uvloop"] = {"backend": "asyncio", "backend_options": {"use_uvloop": True}}
    if find_spec("trio"):
        backends["trio"] = {"backend": "trio"}
    found: dict[str, tuple[Callable[[int], Any], dict[str, Any]]] = {
        "sequential awaits": (sequential, on_asyncio),
        "asyncio.Queue by hand": (asyncio_queues, on_asyncio),
    }
    for name, backend in backends.items():
        found[f"anyio streams, textbook, {name}"] = (anyio_streams, backend)
    for name, backend in backends.items():
        found[f"antflow, {name}"] = (antflow(), backend)
    for name, backend in backends.items():
        found[f"antflow stream(), {name}"] = (antflow_stream(ordered=False), backend)
        found[f"antflow stream(ordered=True), {name}"] = (antflow_stream(ordered=True), backend)
    for name, backend in backends.items():
        found[f"antflow with StatusTracker, {name}"] = (
            antflow(StatusTracker(history=False)),
            backend,
        )
    return found


def measure(run: Callable[[int], Any], backend: dict[str, Any], count: int) -> float:
    """Return CPU microseconds per item and stage."""
    gc.collect()
    began = time.process_time()
    results = anyio.run(run, count, **backend)
    seconds = time.process_time() - began
    if results != list(range(count)):
        raise SystemExit(f"{run} lost, doubled or changed items")
    return seconds * 1e6 / (count * STAGES)


def main() -> None:
    parser = argparse.ArgumentParser(description="Overhead per item and stage.")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    found = contenders()
    figures: dict[str, list[float]] = {name: [] for name in found}
    for index in range(args.rounds + 1):
        for name, (run, backend) in found.items():
            figure = measure(run, backend, args.items)
            if index:  # the first round warms up
                figures[name].append(figure)
    versions = ", ".join(f"{name} {version(name)}" for name in ("antflow", "anyio"))
    print(f"Python {platform.python_version()} on {sys.platform}, {versions}")
    print(
        f"{STAGES} no-op stages × {WORKERS} workers, {args.items} items, "
        f"median of {args.rounds} interleaved rounds\n"
    )
    base = statistics.median(figures["asyncio.Queue by hand"])
    print(f"{'':40} {'CPU µs':>8} {'ratio':>8}")
    for name, values in figures.items():
        middle = statistics.median(values)
        print(f"{name:40} {middle:8.2f} {middle / base:7.2f} ×")

    print(f"\n{'beside run() in the same round':40} {'ratio':>8} {'bound':>8}")
    for name, values in figures.items():
        if name.startswith("antflow stream"):
            beside = figures[f"antflow, {name.split(', ')[1]}"]
            ratio = statistics.median(a / b for a, b in zip(values, beside))
            verdict = "ok" if ratio <= STREAM_BOUND else "too much"
            print(f"{name:40} {ratio:6.2f} × {STREAM_BOUND:6} × {verdict:>9}")


if __name__ == "__main__":
    main()
