"""Workloads of many items, with their bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .cases import Case, Comparison, Measured, Workload, cpu_per_item_stage
from .tasks import ideal

BACKENDS = ("asyncio", "uvloop", "trio")
CPU = "CPU µs per item-stage"
QUEUE = Case("asyncio.Queue by hand", "by_hand:asyncio_queues", 50_000)
BARE = Case("anyio streams, bare", "by_hand:anyio_nowait", 50_000)


def on_each(name: str, code: str = "ours:run", items: int = 50_000, **more: Any) -> list[Case]:
    return [
        Case(f"{name}, {backend}", code, items, backend=backend, **more) for backend in BACKENDS
    ]


def limits(name: str, *values: float) -> dict[str, float]:
    return {f"{name}, {backend}": value for backend, value in zip(BACKENDS, values)}


def compared(name: str, base: str) -> dict[str, str]:
    return {f"{name}, {backend}": f"{base}, {backend}" for backend in BACKENDS}


UNORDERED, ORDERED = "antflow stream()", "antflow stream(ordered=True)"
TRACKED = "antflow with StatusTracker"
NO_OP = Workload(
    name="no-op",
    title="Three no-op stages × 8 workers",
    unit=CPU,
    figure=cpu_per_item_stage,
    cases=(
        Case("sequential awaits", "by_hand:sequential", 50_000),
        QUEUE,
        replace(QUEUE, name="asyncio.Queue by hand, 128 places", options={"buffer": 128}),
        *on_each("anyio streams, textbook", "by_hand:anyio_streams", 5_000),
        BARE,
        *on_each("antflow"),
        *on_each(TRACKED, items=20_000, options={"tracked": True}),
        *on_each(UNORDERED, "ours:stream"),
        *on_each(ORDERED, "ours:stream", options={"ordered": True}),
    ),
    comparisons=(
        Comparison(
            "× asyncio.Queue",
            QUEUE.name,
            limits("antflow", 1.0, 1.5, 1.5) | limits(TRACKED, 4, 5, 5),
        ),
        Comparison(
            "× run()",
            compared(UNORDERED, "antflow") | compared(ORDERED, "antflow"),
            limits(UNORDERED, 1.5, 1.5, 1.5) | limits(ORDERED, 1.5, 1.5, 1.5),
        ),
    ),
    note=(
        "The StatusTracker has its defaults: it keeps the history of each item. Bare streams keep "
        "only the value of an item, and have no failures, retries, statistics or events; they use "
        "the nowait calls first."
    ),
)

# By name: the peer, its code, options, number of items, and the bound: how much faster antflow is.
PEER_CASES: dict[str, tuple[str, str, dict[str, Any], int, float]] = {
    "streamable": ("streamable", "streamable", {}, 10_000, 3),
    "pypeln": ("pypeln", "pypeln", {}, 5_000, 20),
    "aiostream": ("aiostream", "aiostream", {}, 2_000, 40),
    "SPDL": ("SPDL", "spdl", {}, 2_000, 80),
    "SPDL without statistics": ("SPDL", "spdl", {"statistics": False}, 2_000, 80),
    "antflow 0.10.0": ("antflow 0.10.0", "antflow_0_10", {}, 2_000, 60),
    "antflow 0.10.0, per_stage": (
        "antflow 0.10.0",
        "antflow_0_10",
        {"retry": "per_stage"},
        5_000,
        60,
    ),
}
PEERS = Workload(
    name="peers",
    title="The no-op workload on asyncio, compared with alternative libraries",
    unit=CPU,
    figure=cpu_per_item_stage,
    cases=(
        NO_OP.case("antflow, asyncio"),
        NO_OP.case(f"{TRACKED}, asyncio"),
        *(
            Case(name, f"peers:{function}", items, options=options, peer=peer)
            for name, (peer, function, options, items, _) in PEER_CASES.items()
        ),
    ),
    comparisons=(
        Comparison(
            "× antflow",
            "antflow, asyncio",
            {name: case[-1] for name, case in PEER_CASES.items()},
            at_least=True,
        ),
        Comparison(
            "× with StatusTracker",
            dict.fromkeys(PEER_CASES, f"{TRACKED}, asyncio"),
            dict.fromkeys(PEER_CASES, 1),
            at_least=True,
        ),
    ),
    note="`benchmarks/peers.py` says how each peer is used. SPDL without statistics and 0.10.0 "
    "with retries per stage do less than with their defaults.",
)

YIELDS = Workload(
    name="yields",
    title="Three stages × 8 workers whose tasks yield to the event loop once",
    unit=CPU,
    figure=cpu_per_item_stage,
    cases=(replace(QUEUE, tasks="yield"), *on_each("antflow", tasks="yield")),
    comparisons=(Comparison("× asyncio.Queue", QUEUE.name, {"antflow, asyncio": 1.2}),),
)


def compared_with_ideal(case: Case, measured: Measured) -> float:
    return measured["wall"] / ideal(case, measured["items"])


SLEEPING: dict[str, Any] = {"items": 2_000, "tasks": "sleep_0_to_10_ms", "workers": 50}
SLEEPS = Workload(
    name="sleeps",
    title="Three stages × 50 workers that sleep 0–10 ms, 2,000 items",
    unit="wall time over the ideal",
    figure=compared_with_ideal,
    cases=(replace(QUEUE, **SLEEPING), *on_each("antflow", **SLEEPING)),
    comparisons=(Comparison("× asyncio.Queue", QUEUE.name, limits("antflow", 1.3, 1.3, 1.3)),),
    note=(
        "The ideal is the time of the same sleeps if nothing else took any time: an item starts at "
        "a stage when it has left the stage before and a worker is free."
    ),
)

CROWDED: dict[str, Any] = {"items": 20_000, "tasks": "sleep_10_ms", "stages": 1, "workers": 1_000}
LONGER = 100_000


def longer(case: Case) -> Case:
    """Return the same case with so many items that the cost of starting hardly matters."""
    return replace(case, name=f"{case.name}, {LONGER:,} items", items=LONGER)


CROWDS = (
    replace(QUEUE, **CROWDED),
    replace(BARE, **CROWDED),
    *on_each("antflow", **CROWDED),
)
# The base of the no-op workload.
SHORT_QUEUE = replace(CROWDS[0], name=f"{QUEUE.name}, 64 places", options={"buffer": 64})
# Only the cases on asyncio, like the Queue.
LONGER_CROWDS = tuple(longer(case) for case in CROWDS[:3])
CROWD = Workload(
    name="crowd",
    title="One stage × 1,000 workers that sleep 10 ms, 20,000 and 100,000 items",
    unit=CPU,
    figure=cpu_per_item_stage,
    cases=(SHORT_QUEUE, *CROWDS, *LONGER_CROWDS),
    comparisons=(
        Comparison(
            "× asyncio.Queue of 2,000 places",
            {case.name: crowds[0].name for crowds in (CROWDS, LONGER_CROWDS) for case in crowds}
            | {SHORT_QUEUE.name: CROWDS[0].name},
            {"antflow, asyncio": 1.2},
        ),
        Comparison(
            "× that of 64 places",
            dict.fromkeys([SHORT_QUEUE.name, *(case.name for case in CROWDS)], SHORT_QUEUE.name),
        ),
    ),
    note=(
        "All queues hold two items per worker, except the Queue of 64 places, which is the base of "
        "the no-op workload. With 20 items per worker, starting the workers is about a tenth of "
        "the cost; with 100 items it is a small part."
    ),
)
