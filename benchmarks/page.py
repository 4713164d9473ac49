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
TOO_MUCH = "too much"  # what `memory` says at the end of a line, in place of ok

HEAD = """\
# Benchmarks

Written by `nox -s bench` on {day}, which measures the same on your machine in half an hour.
`nox -s bench -- no-op` measures one workload and prints its table, `-- --list` names them.

- Machine: {machine}
- Python {python}: {packages}
- Peers: {peers}
"""

HOW = """## How it was measured

Each measurement was made in a fresh process, after a warm-up at a smaller size, and its results
were checked, with their order; whole runs were repeated there until they had taken {enough} s, and
their mean counts. The rounds were interleaved: the first one measured each contender once, and
so on. Figures are medians, ratios are ratios of medians; `range` has the least and the most of what
the processes gave. Where it is wide, the machine was now fast and now slow, and a ratio within a
tenth of its bound says little.
The base of most ratios is the pipeline that one would write by hand on asyncio: queues of 64 places
(of two for each worker, if these are more), tasks that read from one and write to the next, a
sentinel for each of them. antflow is used as it comes: its queues hold 128 items by default, or two
for each worker, if these are more. An item-stage is one item at one stage.
"""


def memory() -> str:
    """Run `memory` and return its section."""
    head = f"## memory\n\n{MEMORY_TITLE}.\n\n"
    if find_spec("resource") is None:
        return f"{head}Skipped: it cannot be measured on this system.\n"
    script = str(Path(__file__).parent / "memory.py")
    ran = subprocess.run(
        [sys.executable, script, "--items", str(MEMORY_ITEMS)], stdout=subprocess.PIPE, text=True
    )
    if ran.returncode and TOO_MUCH not in ran.stdout:
        raise SystemExit("memory.py failed")
    return f"{head}```text\n{ran.stdout.strip()}\n```\n"


def machine() -> str:
    """Return the model of the processor and how many cores there are."""
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


def short_first(outcomes: list[Outcome], memory: str) -> str:
    """Return what fell short of what is asked, or that nothing did."""
    of_memory = [line for line in memory.splitlines() if line.endswith((" ok", TOO_MUCH))]
    judged = sum(map(tables.bounds_judged, outcomes)) + len(of_memory)
    lines = [line for outcome in outcomes for line in tables.shortfalls(outcome)]
    lines += [f"memory: {' '.join(line.split())}" for line in of_memory if TOO_MUCH in line]
    if not lines:
        return f"## What fell short\n\nNothing: all {judged} bounds were reached.\n"
    told = "\n".join(f"- {line}" for line in lines)
    return f"## What fell short\n\n{len(lines)} of {judged} bounds:\n\n{told}\n"


def picture(outcomes: list[Outcome]) -> str:
    """Draw the no-op workload with the peers, the cheapest first."""
    by_name = {outcome.workload.name: outcome for outcome in outcomes}
    figures = by_name[NO_OP.name].figures()
    ours = [name for name in figures if name.startswith("antflow")]
    peers = by_name[PEERS.name].figures()
    figures |= {name: peers[name] for name in peers if name not in figures}
    ordered = dict(sorted(figures.items(), key=lambda item: item[1]))
    return plot.bars(NO_OP.title, NO_OP.unit, ordered, ours)


def write(outcomes: list[Outcome], memory: str, instructions: str) -> None:
    """Write the page: what fell short first, fairness and instructions last."""
    last = [outcome for outcome in outcomes if outcome.workload is FAIRNESS]
    parts = [
        head(),
        short_first(outcomes, memory),
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
