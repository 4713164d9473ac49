"""All workloads by name, in the order of the page."""

from __future__ import annotations

from . import moments, scale, throughput
from .cases import Workload

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        throughput.NO_OP,
        throughput.PEERS,
        throughput.YIELDS,
        throughput.SLEEPS,
        throughput.CROWD,
        moments.ONE_ITEM,
        moments.IDLE,
        moments.FAILURES,
        moments.GROWTH,
        moments.CANCEL,
        moments.IMPORT,
        moments.FAIRNESS,
        scale.SCALE,
    )
}
