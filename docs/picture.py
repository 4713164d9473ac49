"""
Draws docs/demo.svg for the README: the demo in a terminal while it runs, and its report.

The demo redraws its progress line ten times a second. The picture shows that line at a quarter, a
half and three quarters of the files, and at the end. Counts and times differ a little from run to
run; the layout does not.

    pip install -e '.[rich]' && python docs/picture.py
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from antflow._cli import demo

WIDTH = 100
# Which states of the progress line are drawn, as shares of all files.
SHARES = (0.25, 0.5, 0.75, 1.0)


class Terminal(io.StringIO):
    """Records the output of the demo, including all states of the progress line."""

    def isatty(self) -> bool:
        return True


def share_done(state: str) -> float:
    """Return which share of the files is done in a *state* of the progress line."""
    match = re.search(r"(\d+) of (\d+) files", state)
    return int(match[1]) / int(match[2]) if match else 0.0


def pick_states(line: str) -> list[str]:
    """Return the states of a progress line that are nearest to SHARES, without repetitions."""
    states = [state.removesuffix("\x1b[K") for state in line.split("\r") if state]
    nearest = [min(states, key=lambda state: abs(share_done(state) - share)) for share in SHARES]
    return list(dict.fromkeys(nearest))


def screen(written: str) -> list[str]:
    """Return the lines of the terminal; the progress line becomes one line per picked state."""
    lines: list[str] = []
    for line in written.split("\n"):
        lines += pick_states(line) if "\r" in line else [line]
    return [line if len(line) < WIDTH else f"{line[: WIDTH - 1]}…" for line in lines]


def styled(line: str) -> Text:
    """Return *line* with colors for the progress bar, the counts and the errors."""
    text = Text(line)
    text.highlight_regex(r"█+", "green")
    text.highlight_regex(r"waiting: .*", "cyan")
    text.highlight_regex(r"\w+Error(?=:)", "red")
    text.highlight_regex(r"^(?= *[a-z])[A-Za-z ]{26}(?=  \S)", "bold")
    return text


def main() -> None:
    os.environ["COLUMNS"] = str(WIDTH)
    # As the command line does: the report counts the retries that stamina would log.
    logging.getLogger("stamina").addHandler(logging.NullHandler())
    out = Terminal()
    with tempfile.TemporaryDirectory() as directory:
        demo.main("asyncio", Path(directory) / "index.db", None, out)
    text = out.getvalue().replace(sys.base_prefix, "…").partition("\nThe index is in")[0]
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text("$ antflow demo", style="bold"))
    for line in screen(text):
        console.print(styled(line))
    target = Path(__file__).parent / "demo.svg"
    console.save_svg(str(target), title="antflow demo")
    # Remove the fonts that rich would load from the network; the reader's own are used instead.
    svg = re.sub(r"\s*@font-face \{.*?\}", "", target.read_text(encoding="utf-8"), flags=re.DOTALL)
    target.write_text(svg, encoding="utf-8")
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
