"""
What `slow_callback_duration` and `cancel_grace` cost per task.

One no-op stage of eight workers. The rounds are interleaved, so that a change in the speed of the
machine affects all options. The figures are medians of CPU time.

    python benchmarks/watching.py [--items N] [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from typing import Any

import anyio

from antflow import Pipeline, Stage

OPTIONS: dict[str, dict[str, Any]] = {
    "neither": {},
    "slow_callback_duration": {"slow_callback_duration": 1},
    "cancel_grace": {"cancel_grace": 1},
    "both": {"slow_callback_duration": 1, "cancel_grace": 1},
}


async def no_op(value: Any) -> Any:
    return value


async def cost(pipeline: Pipeline, count: int) -> float:
    """Return the microseconds of CPU time per task."""
    gc.collect()
    began = time.process_time()
    await pipeline.run(range(count))
    return (time.process_time() - began) / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print("| µs per task | asyncio | trio |")
    print("|---|---:|---:|")
    found: dict[str, dict[str, list[float]]] = {name: {} for name in OPTIONS}
    for _ in range(arguments.rounds):
        for name, options in OPTIONS.items():
            for backend in ("asyncio", "trio"):
                pipeline = Pipeline([Stage("A", 8, [no_op])], **options)
                spent = anyio.run(cost, pipeline, arguments.items, backend=backend)
                found[name].setdefault(backend, []).append(spent)
    for name, by_backend in found.items():
        figures = " | ".join(f"{statistics.median(spent):.2f}" for spent in by_backend.values())
        print(f"| {name} | {figures} |")


if __name__ == "__main__":
    main()
