"""
Instructions per item and stage of the no-op workload, counted under valgrind.

    python -m benchmarks.instructions [--items N] [--rounds N]

The count for N items is subtracted from the count for 2 N, which removes start-up and warm-up.
Hashes and the random order of trio's tasks have fixed seeds. valgrind is required; without it, one
line says so. All of it takes a minute.

Precision: the same code with the same N gives the same figure, to 1 in 25,000. Another N changes
it, because garbage collections then happen elsewhere: between 5,000 and 8,000 items by 0.1 % with
asyncio.Queue, 1.5 % with antflow on asyncio, 6 % on trio, and by more below 5,000. A change
elsewhere in the process may have the same effect. So on asyncio a difference of less than 2 % means
nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys

from .cases import Case
from .rounds import ROOT
from .tables import shown
from .throughput import BACKENDS, NO_OP, QUEUE

TITLE = "Instructions of the no-op workload under valgrind"
COUNTED = (QUEUE.name, "antflow, asyncio", "antflow, trio")
# cachegrind without its cache simulation counts like callgrind, in three quarters of the time.
TOOL = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
WARM_UP = 200
ITEMS = 5_000


def count(case: Case, items: int) -> int:
    """Return how many instructions a process executes to measure *case* once."""
    command = [sys.executable, "-m", f"{__package__}.child", NO_OP.name, case.name]
    done = subprocess.run(
        ["valgrind", *TOOL, *command, str(items), "--warm-up", str(WARM_UP), "--steady"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"I +refs: +([\d,]+)", done.stderr)
    if found is None:
        raise SystemExit(f"valgrind printed no count:\n{done.stderr}")
    return int(found[1].replace(",", ""))


def per_item_stage(case: Case, items: int) -> float:
    return (count(case, 2 * items) - count(case, items)) / (items * case.stages)


def counted(backends: list[str], items: int, rounds: int) -> dict[str, list[float]]:
    names = [name for name in COUNTED if name == QUEUE.name or name.split(", ")[1] in backends]
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(1, rounds + 1):
        for name, values in figures.items():
            values.append(per_item_stage(NO_OP.case(name), items))
            print(
                f"instructions {number}/{rounds}: {name}: {values[-1]:,.0f}",
                file=sys.stderr,
                flush=True,
            )
    return figures


def section(backends: list[str], items: int = ITEMS, rounds: int = 1) -> str:
    """Return the heading and the table, or the line that says why there is no table."""
    head = f"## instructions\n\n{TITLE}: {2 * items:,} items minus {items:,} items.\n\n"
    if shutil.which("valgrind") is None:
        return f"{head}Skipped: valgrind is not installed.\n"
    figures = counted(backends, items, rounds)
    base = statistics.median(figures[QUEUE.name])
    lines = ["| | instructions per item-stage | range | × asyncio.Queue |", "|---|---:|---:|---:|"]
    for name, values in figures.items():
        middle = statistics.median(values)
        spread = f"{shown(min(values))}–{shown(max(values))}"
        lines.append(f"| {name} | {shown(middle)} | {spread} | {shown(middle / base)} |")
    return head + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    print(section(list(BACKENDS), args.items, args.rounds))


if __name__ == "__main__":
    main()
