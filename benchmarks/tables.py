"""Markdown tables of the measurements."""

from __future__ import annotations

from .cases import Comparison
from .rounds import Outcome


def shown(value: float) -> str:
    """Return three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def bound(comparison: Comparison, name: str) -> str:
    sign = "≥" if comparison.at_least else "≤"
    return f"{sign} {comparison.limits[name]:g}"


def verdict(comparison: Comparison, name: str, figures: dict[str, float]) -> str:
    fits = comparison.fits(name, figures)
    if fits is None:
        return ""
    return f"{bound(comparison, name)}: {'ok' if fits else '**missed**'}"


def cells(comparison: Comparison, name: str, figures: dict[str, float]) -> list[str]:
    """Return the ratio and its verdict; only the verdict if there is no base."""
    judged = verdict(comparison, name, figures)
    if comparison.base is None:
        return [judged]
    value = comparison.value(name, figures)
    return ["" if value is None else shown(value), judged]


def table(outcome: Outcome) -> str:
    """Return the table of a workload: figures, their range, ratios and bounds."""
    workload = outcome.workload
    figures = outcome.figures()
    if not figures:
        return "Nothing could be measured.\n"
    heads = ["", workload.unit, "range"]
    for comparison in workload.comparisons:
        heads += [comparison.title] if comparison.base is None else [comparison.title, "bound"]
    heads += workload.further
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for name, figure in figures.items():
        values = outcome.values(name)
        row = [name, shown(figure), f"{shown(min(values))}–{shown(max(values))}"]
        for comparison in workload.comparisons:
            row += cells(comparison, name, figures)
        row += [shown(outcome.further(name, key)) for key in workload.further.values()]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def section(outcome: Outcome) -> str:
    """Return a workload with its heading, its table and its note."""
    workload = outcome.workload
    missing = "; ".join(f"{name} ({why})" for name, why in outcome.left_out.items())
    parts = [
        f"## {workload.name}",
        f"{workload.title}. {outcome.rounds} round{'' if outcome.rounds == 1 else 's'}.",
        table(outcome).rstrip(),
        workload.note,
        missing and f"Left out: {missing}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def missed_bounds(outcome: Outcome) -> list[str]:
    """Return a line for each bound that was missed."""
    figures = outcome.figures()
    lines = []
    for comparison in outcome.workload.comparisons:
        for name in figures:
            if comparison.fits(name, figures) is False:
                value = comparison.value(name, figures)
                assert value is not None
                of = outcome.workload.unit if comparison.base is None else comparison.title
                lines.append(
                    f"{outcome.workload.name}: {name}: {shown(value)} {of}, "
                    f"bound {bound(comparison, name)}"
                )
    return lines


def bounds_judged(outcome: Outcome) -> int:
    figures = outcome.figures()
    return sum(
        comparison.fits(name, figures) is not None
        for comparison in outcome.workload.comparisons
        for name in figures
    )
