"""The command line: see `benchmarks`."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec

from . import instructions, page, quick, tables
from .cases import Case, Workload
from .moments import MANY
from .rounds import run_rounds
from .throughput import BACKENDS
from .workloads import WORKLOADS

FURTHER = {"instructions": instructions.TITLE, "memory": page.MEMORY_TITLE}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Benchmarks of antflow."
    )
    parser.add_argument("names", nargs="*", metavar="workload", help="see --list; by default all")
    parser.add_argument("--rounds", type=int, help="how many times each contender is measured")
    parser.add_argument(
        "--backends",
        default=",".join(BACKENDS),
        help="some of %(default)s; what these are compared with is always measured",
    )
    parser.add_argument(
        "--full", action="store_true", help="include a million items when workloads are named"
    )
    parser.add_argument("--list", action="store_true", help="name the workloads")
    parser.add_argument("--quick", action="store_true", help="antflow and asyncio.Queue only")
    args = parser.parse_args()
    args.backends = args.backends.split(",")
    if unknown := [name for name in args.names if name not in WORKLOADS and name not in FURTHER]:
        parser.error(f"no workload is called {', '.join(unknown)}; --list names them")
    if unknown := [name for name in args.backends if name not in BACKENDS]:
        parser.error(f"no backend is called {', '.join(unknown)}")
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds must be at least 1")
    return args


def installed(backend: str) -> bool:
    return backend == "asyncio" or find_spec(backend) is not None


def chosen(workload: Workload, backends: list[str], full: bool) -> list[Case]:
    """Return the cases to measure, with the cases that they are compared with."""
    wanted = {
        case.name
        for case in workload.cases
        if (case.backend in backends or not case.name.endswith(case.backend))
        and (full or case.items < MANY)
    }
    bases = {comparison.base_of(name) for comparison in workload.comparisons for name in wanted}
    return [case for case in workload.cases if case.name in wanted | bases]


def main() -> None:
    args = parse()
    if args.list:
        for name, workload in WORKLOADS.items():
            print(f"{name:14}{workload.title}")
        for name, title in FURTHER.items():
            print(f"{name:14}{title}")
        return
    if args.quick:
        quick.main(args.rounds)
        return
    backends = []
    for backend in args.backends:
        if installed(backend):
            backends.append(backend)
        else:
            print(f"{backend} is not installed: left out", file=sys.stderr)
    everything = not args.names
    outcomes = []
    for name in args.names or WORKLOADS:
        if name in WORKLOADS:
            workload = WORKLOADS[name]
            cases = chosen(workload, backends, everything or args.full)
            outcome = run_rounds(workload, cases, args.rounds or workload.rounds)
            outcomes.append(outcome)
            print(tables.section(outcome), flush=True)
        elif name == "memory":
            print(page.memory())
        else:
            print(instructions.section(backends))
    if everything and set(backends) == set(BACKENDS):
        page.write(outcomes, page.memory(), instructions.section(backends))
    # A peer may be missing. A case that needs no peer must have been measured.
    if any(out.workload.case(name).peer is None for out in outcomes for name in out.left_out):
        sys.exit(1)


if __name__ == "__main__":
    main()
