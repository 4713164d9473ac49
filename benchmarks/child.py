"""
One measurement, in a process of its own: see `rounds`, which starts it.

    python -m benchmarks.child WORKLOAD CASE ITEMS [--warm-up N] [--steady]

Prints one line of JSON, and fails if the results are not right, or not in order.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from importlib.metadata import version

from .measures import one_run, resolve, whole_runs
from .peers import PINNED
from .workloads import WORKLOADS


def main() -> None:
    parser = argparse.ArgumentParser(description="One measurement.")
    parser.add_argument("workload")
    parser.add_argument("case")
    parser.add_argument("items", type=int)
    parser.add_argument("--warm-up", type=int)
    parser.add_argument(
        "--steady", action="store_true", help="one run, with the same steps each time"
    )
    args = parser.parse_args()
    workload = WORKLOADS[args.workload]
    case = workload.case(args.case)
    if case.peer is not None:
        package, _, pinned = PINNED[case.peer][0].partition("==")
        if version(package) != pinned:
            raise SystemExit(f"{package} {version(package)} is there, and {pinned} was asked for")
    measure = resolve(workload.measure)
    if args.steady and measure is whole_runs:
        measure = one_run
    if args.steady and case.backend == "trio":
        # trio draws lots for which task goes first; hypothesis seeds the same private generator.
        import_module("trio._core._run")._r.seed(0)
    warm_up = args.warm_up or min(args.items, max(100, args.items // 10))
    print(json.dumps(measure(case, args.items, warm_up)))


if __name__ == "__main__":
    main()
