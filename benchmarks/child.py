"""
One measurement, in a process of its own; `rounds` starts it.

    python -m benchmarks.child WORKLOAD CASE ITEMS [--warm-up N] [--steady]

Prints one line of JSON. Fails if the results are wrong or out of order.
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
        "--steady", action="store_true", help="a single run, with the same steps every time"
    )
    args = parser.parse_args()
    workload = WORKLOADS[args.workload]
    case = workload.case(args.case)
    if case.peer is not None:
        package, _, pinned = PINNED[case.peer][0].partition("==")
        if version(package) != pinned:
            raise SystemExit(f"{package} {version(package)} is installed, but {pinned} is pinned")
    measure = resolve(workload.measure)
    if args.steady and measure is whole_runs:
        measure = one_run
    if args.steady and case.backend == "trio":
        # trio randomizes the order of tasks; hypothesis seeds the same private generator.
        import_module("trio._core._run")._r.seed(0)
    warm_up = args.warm_up or min(args.items, max(100, args.items // 10))
    print(json.dumps(measure(case, args.items, warm_up)))


if __name__ == "__main__":
    main()
