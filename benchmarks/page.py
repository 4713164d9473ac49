"""Writes docs/benchmarks.md and its plot."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from . import plot, tables
from .measures import ENOUGH
from .moments import FAIRNESS
from .peers import PINNED
from .rounds import ROOT, Outcome
from .throughput import NO_OP, PEERS

PAGE = ROOT / "docs" / "benchmarks.md"
PLOT = PAGE.with_suffix(".svg")
PACKAGES = ("antflow", "anyio", "attrs", "stamina", "trio", "uvloop")
MEMORY_TITLE = "Memory that grows with the number of items"
MEMORY_ITEMS = 100_000
TOO_MUCH = "too much"  # the end of a line of `memory`, if it is not "ok"

HEAD = """\
# Benchmarks

Written by `nox -s bench` on {day}. The same command measures on your machine, in half an hour.
`nox -s bench -- no-op` measures one workload and prints its table; `nox -s bench -- --list` lists
the workloads.

- Machine: {machine}
- Python {python}: {packages}
- Peers: {peers}
"""

HOW = """## How it was measured

Each measurement is made in a fresh process, after a warm-up at a smaller size. The results and
their order are checked. Short runs are repeated for {enough} s, and the process reports their mean.
The rounds are interleaved: each round measures every contender once. Figures are medians over the
rounds, and ratios are ratios of medians. `range` gives the lowest and the highest figure of a
single process. A wide range means that the speed of the machine changed; a ratio within a tenth of
its bound then says little.

Most ratios compare with a pipeline written by hand on asyncio: queues of 64 places, or two per
worker if that is more; tasks that read from one queue and write to the next; and a sentinel for
each task. antflow is used with its defaults: its queues hold 128 items, or two per worker if that
is more. An item-stage is one item at one stage.
"""


def memory() -> str:
    """Run `memory` and return its section."""
    head = f"## memory\n\n{MEMORY_TITLE}.\n\n"
    if find_spec("resource") is None:
        return f"{head}Skipped: this system has no `resource` module.\n"
    script = str(Path(__file__).parent / "memory.py")
    ran = subprocess.run(
        [sys.executable, script, "--items", str(MEMORY_ITEMS)], stdout=subprocess.PIPE, text=True
    )
    if ran.returncode and TOO_MUCH not in ran.stdout:
        raise SystemExit("memory.py failed")
    return f"{head}```text\n{ran.stdout.strip()}\n```\n"


def machine() -> str:
    """Return the model of the processor, the number of cores and the system."""
    model = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists() and (found := re.search(r"model name\s*: (.*)", about.read_text("utf-8"))):
        model = found[1]
    cores = os.cpu_count() or 0
    return f"{model}, {cores} core{'' if cores == 1 else 's'}, {platform.system()}"


def head() -> str:
    return HEAD.format(
        day=date.today().isoformat(),
        machine=machine(),
        python=platform.python_version(),
        packages=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        peers=", ".join(pins[0].replace("==", " ") for pins in PINNED.values()),
    )


def missed_bounds(outcomes: list[Outcome], memory: str) -> str:
    """Return the section that lists the bounds that were missed."""
    of_memory = [line for line in memory.splitlines() if line.endswith((" ok", TOO_MUCH))]
    judged = sum(map(tables.bounds_judged, outcomes)) + len(of_memory)
    lines = [line for outcome in outcomes for line in tables.missed_bounds(outcome)]
    lines += [f"memory: {' '.join(line.split())}" for line in of_memory if TOO_MUCH in line]
    if not lines:
        return f"## Missed bounds\n\nNone: all {judged} bounds were met.\n"
    listed = "\n".join(f"- {line}" for line in lines)
    return f"## Missed bounds\n\n{len(lines)} of {judged} bounds were missed:\n\n{listed}\n"


def picture(outcomes: list[Outcome]) -> str:
    """Plot the no-op workload with the peers, the cheapest first."""
    by_name = {outcome.workload.name: outcome for outcome in outcomes}
    figures = by_name[NO_OP.name].figures()
    ours = [name for name in figures if name.startswith("antflow")]
    peers = by_name[PEERS.name].figures()
    figures |= {name: peers[name] for name in peers if name not in figures}
    ordered = dict(sorted(figures.items(), key=lambda item: item[1]))
    return plot.bars(NO_OP.title, NO_OP.unit, ordered, ours)


def write(outcomes: list[Outcome], memory: str, instructions: str) -> None:
    """Write the page: missed bounds first, fairness and instructions last."""
    last = [outcome for outcome in outcomes if outcome.workload is FAIRNESS]
    parts = [
        head(),
        missed_bounds(outcomes, memory),
        f"![{NO_OP.title}: {NO_OP.unit}]({PLOT.name})\n",
        HOW.format(enough=ENOUGH),
        *(tables.section(outcome) for outcome in outcomes if outcome not in last),
        memory,
        *map(tables.section, last),
        instructions,
    ]
    PLOT.write_text(picture(outcomes), encoding="utf-8")
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    print(f"wrote {PAGE} and {PLOT}")
