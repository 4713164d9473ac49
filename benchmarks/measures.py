"""The measurements in the fresh process, which imports only what the contender needs."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from .cases import Case, Measured
from .tasks import expected, tasks_of, yielding

ENOUGH = 1  # second


def resolve(code: str) -> Callable[..., Any]:
    module, _, name = code.partition(":")
    return getattr(import_module(f"{__package__}.{module}"), name)


def anyio_options(backend: str) -> dict[str, Any]:
    """Return the arguments with which `anyio.run` runs on *backend*."""
    if backend == "uvloop":
        return {"backend": "asyncio", "backend_options": {"use_uvloop": True}}
    return {"backend": backend}


def start_loop(case: Case, main: Callable[..., Any], *arguments: Any) -> Any:
    import anyio  # not installed in the environments of the peers

    return anyio.run(main, *arguments, **anyio_options(case.backend))


def prepare(case: Case, count: int) -> Callable[[int], Any]:
    """Build the contender for up to *count* items."""
    return resolve(case.code)(tasks_of(case, count), case.workers, **case.options)


def check(case: Case, count: int, results: list[int]) -> None:
    if results != expected(case, count):
        raise SystemExit(f"{case.name} lost, doubled, changed or reordered items")


def prepared(case: Case, count: int) -> Callable[[int], list[int]]:
    """Build the contender as a plain function, which starts an event loop if it needs one."""
    run = prepare(case, count)
    return run if case.peer is not None else partial(start_loop, case, run)


def timed_run(case: Case, count: int) -> Measured:
    run = prepared(case, count)
    gc.collect()
    began, began_cpu = time.perf_counter(), time.process_time()
    results = run(count)
    cpu, wall = time.process_time() - began_cpu, time.perf_counter() - began
    check(case, count, results)
    return {"cpu": cpu, "wall": wall, "items": count}


def one_run(case: Case, count: int, warm_up: int) -> Measured:
    """Measure one run from the start of the loop to its end."""
    check(case, warm_up, prepared(case, warm_up)(warm_up))
    return timed_run(case, count)


def whole_runs(case: Case, count: int, warm_up: int) -> Measured:
    """
    Measure runs, one after the other, for at least `ENOUGH` seconds, and return the mean.

    The speed of a shared machine alternates. A mean contains fast and slow phases, while a median
    is a figure of one or the other: so the means of several processes differ less.
    """
    runs = [one_run(case, count, warm_up)]
    while sum(run["wall"] for run in runs) < ENOUGH:
        runs.append(timed_run(case, count))
    cpu, wall = (statistics.fmean(run[key] for run in runs) for key in ("cpu", "wall"))
    return {"cpu": cpu, "wall": wall, "items": count}


def one_item(case: Case, count: int, warm_up: int) -> Measured:
    """Return the median of *count* runs of one item each, one after the other in one loop."""
    run = prepare(case, 1)

    async def main() -> list[tuple[float, float]]:
        times = []
        for _ in range(warm_up + count):
            began, began_cpu = time.perf_counter(), time.process_time()
            results = await run(1)
            cpu, wall = time.process_time() - began_cpu, time.perf_counter() - began
            times.append((cpu, wall))
            check(case, 1, results)
        return times[warm_up:]

    cpu, wall = map(statistics.median, zip(*start_loop(case, main)))
    return {"cpu": cpu, "wall": wall, "items": 1}


def idle_run(case: Case, count: int, warm_up: int) -> Measured:
    """Measure one run inside a loop, after others whose tasks do not sleep."""

    async def main() -> Measured:
        short = replace(case, tasks="no_op")
        for _ in range(warm_up):
            check(short, 1, await prepare(short, 1)(1))
        run = prepare(case, 1)
        gc.collect()
        began, began_cpu = time.perf_counter(), time.process_time()
        results = await run(1)
        cpu, wall = time.process_time() - began_cpu, time.perf_counter() - began
        check(case, 1, results)
        return {"cpu": cpu, "wall": wall, "items": 1}

    return start_loop(case, main)


def delays(case: Case, count: int, warm_up: int) -> Measured:
    """Measure how long another loop task waits, and how many tasks at most run meanwhile."""
    yield_once = yielding(case.backend)
    begun = 0

    async def main(count: int) -> Measured:
        import anyio

        nonlocal begun
        begun = 0
        total = count * case.stages
        times: list[float] = []
        most = 0

        async def watch() -> None:
            nonlocal most
            # CPU time, so that other processes on the machine do not count as a delay.
            last, last_begun = time.thread_time(), begun
            # After the last task the list of results is built, which is no delay by tasks.
            while begun < total:
                await yield_once(0)
                now = time.thread_time()
                times.append(now - last)
                most = max(most, begun - last_begun)
                last, last_begun = now, begun

        (task,) = set(tasks_of(case, count))

        async def counted(value: int) -> int:
            nonlocal begun
            begun += 1
            return await task(value)

        run = resolve(case.code)([counted] * case.stages, case.workers, **case.options)
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await anyio.lowlevel.checkpoint()
            began, began_cpu = time.perf_counter(), time.process_time()
            results = await run(count)
            cpu, wall = time.process_time() - began_cpu, time.perf_counter() - began
        check(case, count, results)
        found = {"longest": max(times) * 1e3, "usual": statistics.median(times) * 1e3}
        return {"cpu": cpu, "wall": wall, "items": count, "tasks": most, **found}

    start_loop(case, main, warm_up)
    gc.collect()
    # A garbage collection delays everything, and would hide the delays by tasks.
    gc.disable()
    return start_loop(case, main, count)


def cancelling(case: Case, count: int, warm_up: int) -> Measured:
    """Measure the cancellation of *count* busy workers: see `cancel`."""
    from . import cancel

    body = getattr(cancel, case.options["body"])
    options = anyio_options(case.backend)
    cancel.measure(body, warm_up, options)
    cpu = statistics.median(cancel.measure(body, count, options) for _ in range(3))
    return {"cpu": cpu, "wall": None, "items": count}


IMPORT_CODE = """\
import time
{after}
began = time.process_time()
import {imported}
print(time.process_time() - began)
"""


def importing(case: Case, count: int, warm_up: int) -> Measured:
    """Return the median of *count* imports, each in an interpreter of its own."""
    code = IMPORT_CODE.format(**case.options)
    with tempfile.TemporaryDirectory() as directory:
        # The warm-up compiles the modules, also where bytecode is not written by default.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": directory}

        def run() -> float:
            done = subprocess.run(
                [sys.executable, "-c", code], env=env, check=True, stdout=subprocess.PIPE, text=True
            )
            return float(done.stdout)

        cpu = statistics.median([run() for _ in range(warm_up + count)][warm_up:])
    return {"cpu": cpu, "wall": None, "items": count}
