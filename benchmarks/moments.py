"""Workloads of single operations, and of growth with size; with their bounds."""

from __future__ import annotations

from typing import Any

from .cases import Case, Comparison, Measured, Workload, cpu_per_item_stage
from .throughput import BACKENDS, CPU, QUEUE, compared, limits, on_each

MANY = 1_000_000  # measured only when everything is, or with --full
LINEAR = 1.5


def milliseconds(case: Case, measured: Measured) -> float:
    return measured["wall"] * 1e3


def share_of_core(case: Case, measured: Measured) -> float:
    return measured["cpu"] / measured["wall"] * 100


def longest_delay(case: Case, measured: Measured) -> float:
    return measured["longest"]


def cpu_milliseconds(case: Case, measured: Measured) -> float:
    return measured["cpu"] * 1e3


ONE_ITEM = Workload(
    name="one-item",
    title="A run of one item, three stages × 1,000 workers",
    unit="ms",
    figure=milliseconds,
    measure="measures:one_item",
    cases=(
        Case(QUEUE.name, QUEUE.code, 5, workers=1_000),
        *on_each("antflow", items=50, workers=1_000),
    ),
    comparisons=(Comparison("bound", None, limits("antflow", 1, 1, 1)),),
    note="Each process takes the median of several runs in one loop, one after the other.",
)

IDLE = Workload(
    name="idle",
    title="A run of one item that takes 3 s, three stages × 1,000 workers",
    unit="% of a core",
    figure=share_of_core,
    measure="measures:idle_run",
    rounds=3,
    cases=(
        Case(QUEUE.name, QUEUE.code, 1, tasks="sleep_3_s", workers=1_000),
        *on_each("antflow", items=1, tasks="sleep_3_s", workers=1_000),
    ),
    comparisons=(Comparison("bound", None, limits("antflow", 0.5, 0.5, 0.5)),),
    note="The CPU time includes the start and the end of the run.",
)

NONE, SOME = "none fails", "every 10th fails"
FAILURES = Workload(
    name="failures",
    title="Three stages × 8 workers; every 10th item fails in the last one, without retry",
    unit=CPU,
    figure=cpu_per_item_stage,
    cases=(
        *on_each(NONE, options={"task_attempts": 1}),
        *on_each(SOME, tasks="fail", options={"task_attempts": 1}),
    ),
    comparisons=(Comparison("× none fails", compared(SOME, NONE), limits(SOME, 1.5, 1.5, 1.5)),),
)

SIZES = (1_000, 10_000, 100_000, MANY)
CROWDS = (8, 64, 1_000)
WAYS = {"run()": "ours:run", "stream()": "ours:stream"}


def of_size(way: str, size: int) -> str:
    return f"{way}, {size:,} items"


def of_crowd(way: str, workers: int) -> str:
    return f"{way}, 100,000 items, {workers:,} workers"


def growth_cases() -> list[Case]:
    return [
        *(Case(of_size(way, size), code, size) for way, code in WAYS.items() for size in SIZES),
        *(
            Case(of_crowd(way, workers), code, 100_000, workers=workers)
            for way, code in WAYS.items()
            for workers in CROWDS[1:]
        ),
    ]


def growth_bases() -> dict[str, str]:
    bases = {of_size(way, size): of_size(way, SIZES[0]) for way in WAYS for size in SIZES[1:]}
    for way in WAYS:
        bases |= {of_crowd(way, workers): of_size(way, 100_000) for workers in CROWDS[1:]}
    return bases


GROWTH = Workload(
    name="growth",
    title="Three no-op stages on asyncio, 1 k to 1 M items, 8 to 1,000 workers",
    unit=CPU,
    figure=cpu_per_item_stage,
    rounds=5,
    cases=tuple(growth_cases()),
    comparisons=(Comparison("× smallest", growth_bases(), dict.fromkeys(growth_bases(), LINEAR)),),
    note=(
        f"The cost per item-stage must be at most {LINEAR:g} × that of 1,000 items, or of 8 "
        "workers. The cost of starting is not subtracted."
    ),
)

INSTANT, BUSY = "no-op tasks", "tasks of 300 µs"
SPINNING: dict[str, Any] = {"items": 1_000, "tasks": "busy"}
FAIRNESS = Workload(
    name="fairness",
    title="Three stages × 8 workers whose tasks never await: the delay of another loop task",
    unit="longest delay, CPU ms",
    figure=longest_delay,
    measure="measures:delays",
    rounds=3,
    cases=(
        Case(f"asyncio.Queue, {INSTANT}", QUEUE.code, 50_000),
        *on_each(f"antflow, {INSTANT}"),
        Case(f"asyncio.Queue, {BUSY}", QUEUE.code, **SPINNING),
        *on_each(f"antflow, {BUSY}", **SPINNING),
    ),
    note="The garbage collector is off, because a collection delays everything.",
    further={"median delay": "usual", "most tasks in one delay": "tasks"},
)

BARE, OURS = "bare task group", "antflow"
CANCEL = Workload(
    name="cancel",
    title="Cancelling a run of 1,000 busy workers",
    unit="CPU ms",
    figure=cpu_milliseconds,
    measure="measures:cancelling",
    cases=tuple(
        Case(f"{name}, {backend}", "", 1_000, backend=backend, options={"body": body})
        for backend in BACKENDS
        for name, body in ((BARE, "task_group"), (OURS, "pipeline"))
    ),
    comparisons=(Comparison("× bare task group", compared(OURS, BARE), limits(OURS, 2, 2, 2)),),
)

DEPENDENCIES = "asyncio, anyio, attrs, stamina"
IMPORT = Workload(
    name="import",
    title="Importing antflow once its dependencies are imported",
    unit="CPU ms",
    figure=cpu_milliseconds,
    measure="measures:importing",
    cases=(
        Case(DEPENDENCIES, "", 5, options={"after": "", "imported": DEPENDENCIES}),
        Case("antflow", "", 5, options={"after": f"import {DEPENDENCIES}", "imported": "antflow"}),
    ),
    comparisons=(Comparison("bound", None, {"antflow": 40}),),
    note=(
        "Each process takes the median of several interpreters, which find all modules compiled. "
        f"The row of antflow does not include the import of {DEPENDENCIES}."
    ),
)
