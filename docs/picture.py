"""
Draws the terminal picture of the demo that the README shows.

    pip install -e '.[rich]' && python docs/picture.py
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from antflow._cli import demo

WIDTH = 100


class Terminal(io.StringIO):
    """Takes what the demo writes to a terminal."""

    def isatty(self) -> bool:
        return True


def screen(written: str) -> str:
    """Return what a terminal shows in the end: of a line that was drawn over, the last state."""
    lines = [line.rpartition("\r")[2].removesuffix("\x1b[K") for line in written.split("\n")]
    return "\n".join(line if len(line) < WIDTH else f"{line[: WIDTH - 1]}…" for line in lines)


def main() -> None:
    out = Terminal()
    with tempfile.TemporaryDirectory() as directory:
        demo.main("asyncio", Path(directory) / "index.db", None, out)
        text = out.getvalue().replace(sys.base_prefix, "…")
    shown = screen(text).partition("\nThe index is in")[0]
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text("$ antflow demo", style="bold"))
    console.print(Text(shown))
    target = Path(__file__).parent / "demo.svg"
    console.save_svg(str(target), title="antflow demo")
    # No fonts from the network: the reader's own will do.
    svg = re.sub(r"\s*@font-face \{.*?\}", "", target.read_text(encoding="utf-8"), flags=re.DOTALL)
    target.write_text(svg, encoding="utf-8")
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
