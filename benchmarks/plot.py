"""A plot of figures: horizontal bars on a logarithmic scale, in SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from .tables import shown

WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = 800, 24, 290, 50, 52, 44

# The plot has its own background: the page may be dark where the system is not.
STYLE = """\
.ground { fill: #ffffff } text { fill: #24292f; font: 13px sans-serif }
.line { stroke: #d0d7de } .bar { fill: #8c959f } .ours { fill: #0969da }
.small { font-size: 11px; fill: #57606a } .title { font-weight: bold }
@media (prefers-color-scheme: dark) {
  .ground { fill: #1c2128 } text { fill: #d6dde4 }
  .line { stroke: #3d444d } .bar { fill: #768390 } .ours { fill: #539bf5 }
  .small { fill: #9aa5b1 }
}
"""


def bars(title: str, unit: str, figures: dict[str, float], ours: Iterable[str]) -> str:
    """Return a plot of *figures* in their order, with the bars of *ours* in another colour."""
    emphasised = set(ours)
    first = math.floor(math.log10(min(figures.values())))
    last = math.log10(max(figures.values())) + 0.1
    height = TOP + ROW * len(figures) + BOTTOM
    bottom = TOP + ROW * len(figures)

    def x(value: float) -> float:
        share = (math.log10(value) - first) / (last - first)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>',
        f'<text class="title" x="16" y="28">{escape(title)}</text>',
    ]
    for power in range(first, math.floor(last) + 1):
        at = x(10.0**power)
        parts += [
            f'<line class="line" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{bottom}"/>',
            f'<text class="small" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{10.0**power:g}</text>",
        ]
    for number, (name, value) in enumerate(figures.items()):
        y = TOP + ROW * number
        kind = "ours" if name in emphasised else "bar"
        length = max(x(value) - LEFT, 1)
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{y + 3}" width="{length:.1f}" height="16"/>',
            f'<text class="small" x="{LEFT + length + 6:.1f}" y="{y + 15}">{shown(value)}</text>',
        ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts += [
        f'<text class="small" x="{middle}" y="{bottom + 34}" text-anchor="middle">'
        f"{escape(unit)}, logarithmic scale: lower is better</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
