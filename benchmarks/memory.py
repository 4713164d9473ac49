"""
Memory that grows with the number of items: none for stream(), little besides the results for run().

Three no-op stages of eight workers. Each figure is the peak of the resident memory of an
interpreter of its own, minus the peak with ten thousand items: the part that grows with the number
of items. The exit code is 1 if a figure is above its bound.

    python benchmarks/memory.py [--items N]

A million items take a minute or two; a hundred thousand give nearly the same figures. It does not
run on Windows.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import anyio

from antflow import Pipeline, PipelineResult, Stage

STAGES = 3
WORKERS = 8
FEW = 10_000
MEGABYTE = 1_000_000

STREAM_BOUND = 10  # megabytes, however many items
RUN_BOUND = 150  # bytes per item, without the results themselves


async def no_op(value: Any) -> Any:
    return value


def pipeline() -> Pipeline:
    return Pipeline([Stage(f"Stage{index}", WORKERS, [no_op]) for index in range(STAGES)])


async def stream(count: int, ordered: bool = False) -> int:
    """Stream generated items, and drop the results."""
    source = (number for number in range(count))
    received = 0
    async with pipeline().stream(source, ordered=ordered) as results:
        async for _ in results:
            received += 1
    return received


async def stream_ordered(count: int) -> int:
    return await stream(count, ordered=True)


async def run(count: int) -> int:
    return len(await pipeline().run(range(count)))


async def bare_results(count: int) -> int:
    """No pipeline at all: the memory of the results of `run` alone."""
    return len([PipelineResult(number, number, number) for number in range(count)])


CONTENDERS: dict[str, Callable[[int], Awaitable[int]]] = {
    "stream()": stream,
    "stream(ordered=True)": stream_ordered,
    "run()": run,
    "bare results": bare_results,
}


def print_peak(name: str, backend: str, count: int) -> None:
    """Run *name* in this process, and print the peak of its resident memory in bytes."""
    if anyio.run(CONTENDERS[name], count, backend=backend) != count:
        raise SystemExit(f"{name} lost or doubled items")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak if sys.platform == "darwin" else peak * 1024)


def growth(name: str, backend: str, count: int) -> int:
    """Return the peak with *count* items minus the peak with `FEW`, in bytes."""

    def peak(count: int) -> int:
        # On Linux a new process inherits the peak of its parent, so this process only imports the
        # same modules.
        command = [sys.executable, __file__, "--peak", name, backend, "--items", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return int(done.stdout)

    return peak(count) - peak(FEW)


def report(name: str, figure: float, bound: float, unit: str) -> bool:
    """Print a line of the table, and return whether *figure* is within *bound*."""
    fits = figure <= bound
    print(f"{name:32} {figure:8.1f} {bound:8} {unit:12} {'ok' if fits else 'too much'}", flush=True)
    return fits


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory that grows with the number of items.")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak is not None:
        name, backend = args.peak
        print_peak(name, backend, args.items)
        return
    if args.items <= FEW:
        parser.error(f"--items must be more than {FEW}")

    versions = ", ".join(f"{name} {version(name)}" for name in ("antflow", "anyio"))
    print(f"Python {platform.python_version()} on {sys.platform}, {versions}")
    print(
        f"{STAGES} no-op stages × {WORKERS} workers, peak of {args.items} items "
        f"above that of {FEW}\n"
    )
    print(f"{'':32} {'growth':>8} {'bound':>8}")
    fits = []
    for backend in ["asyncio"] + (["trio"] if find_spec("trio") else []):
        for name in ("stream()", "stream(ordered=True)"):
            figure = growth(name, backend, args.items) / MEGABYTE
            fits.append(report(f"{name}, {backend}", figure, STREAM_BOUND, "MB"))
        extra = growth("run()", backend, args.items) - growth("bare results", backend, args.items)
        figure = extra / (args.items - FEW)
        fits.append(report(f"run(), {backend}", figure, RUN_BOUND, "bytes/item"))
    if not all(fits):
        sys.exit(1)


if __name__ == "__main__":
    main()
