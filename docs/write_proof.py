"""
Write proof.md from the figures that `nox -s proof` recorded.

    python docs/write_proof.py FIGURES.json docs/proof.md
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PACKAGES = ("antflow", "anyio", "trio", "stamina", "hypothesis")

HEAD = """\
# Proof

These tests inject faults into pipelines, and check that the promises of antflow still hold. Each
row is a group of tests in `tests/faults`. A run is one execution from its first step to its last:
under a schedule that hypothesis draws (which loop task makes the next step, which one is held back,
and for how many steps), or with the fault injected before one step, for every step or every n-th
step in turn. Tests without runs use the default order of asyncio, uvloop and trio; some start a
separate process. This page is written only if all tests pass.

Written by `nox -s proof` on {day}: {versions}.
"""

CANCELLING = """\
## Cost of a cancellation (row 9)

"""

WATCHING = """\
## Cost of slow_callback_duration and cancel_grace (rows 12 and 27)

The bound is 3 µs per task more than with neither option. A pipeline that sets neither option has no
additional cost.

"""


def versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"Python {platform.python_version()} on {platform.system()}, {packages}"


def table(rows: dict[str, Any]) -> str:
    lines = [
        "| row | what is tested | tests | cases | runs, asyncio | runs, trio | steps | seconds |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for number in sorted(rows, key=int):
        row = rows[number]
        tests = row["tests"].values()
        figures = (
            len(tests),
            sum(test["cases"] for test in tests),
            sum(test["runs"]["asyncio"] for test in tests),
            sum(test["runs"]["trio"] for test in tests),
            sum(test["steps"] for test in tests),
            round(sum(test["seconds"] for test in tests)),
        )
        cells = " | ".join(f"{figure:,}" for figure in figures)
        lines.append(f"| {number} | {row['title']} | {cells} |")
    return "\n".join(lines) + "\n"


def further_figures(rows: dict[str, Any]) -> str:
    found = [
        f"| {number} | {name} | {value} |"
        for number in sorted(rows, key=int)
        for name, value in rows[number].get("figures", {}).items()
    ]
    if not found:
        return ""
    return "\n".join(
        ["## Memory", "", "| row | memory of | measured |", "|---:|---|---:|", *found, ""]
    )


def measured(script: str) -> str:
    ran = subprocess.run(
        [sys.executable, str(BENCHMARKS / script)], check=True, capture_output=True, text=True
    )
    return ran.stdout


def main() -> None:
    figures, page = map(Path, sys.argv[1:])
    rows = json.loads(figures.read_text(encoding="utf-8"))
    text = "\n".join(
        part
        for part in (
            HEAD.format(day=date.today().isoformat(), versions=versions()),
            table(rows),
            further_figures(rows),
            CANCELLING + measured("cancel.py"),
            WATCHING + measured("watching.py"),
        )
        if part
    )
    page.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
