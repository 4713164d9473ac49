"""
Write proof.md from the figures of the slow session, `nox -s proof`.

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

The promises of antflow are tested under every fault that we could think of, injected wherever it
can occur. Each row is a group of tests in `tests/faults`. "Runs" are whole executions, from the
first step to the last: under schedules that hypothesis draws (which loop task runs next, which is
held back, and for how long), or with the fault before each step of an execution in turn. Rows
without runs are tested in the normal order of the backends; some of them in processes of their
own, also on uvloop. This page is written only if all tests pass.

Written by `nox -s proof` on {day}: {versions}.
"""

CANCELLING = """\
## What cancellation costs (row 9)

"""

WATCHING = """\
## What slow_callback_duration and cancel_grace cost (row 27)

The bound is 3 µs per task more than in the first line. Pipelines that set neither option pay
nothing.

"""


def versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"Python {platform.python_version()} on {platform.system()}, {packages}"


def table(rows: dict[str, Any]) -> str:
    lines = [
        "| row | what | tests | cases | runs, asyncio | runs, trio | steps | seconds |",
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
    return "\n".join(["## Sizes", "", "| row | what | measured |", "|---:|---|---:|", *found, ""])


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
