"""The words in which workloads are defined: cases, comparisons, bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Measured = dict[str, Any]  # what the process of one measurement has printed


@dataclass(frozen=True)
class Case:
    """
    One contender at one size.

    Args:
        name: As the tables show it.
        code: ``"module:function"`` in this package; the function prepares a run.
        items: How many items go through the stages.
        backend: ``"asyncio"``, ``"uvloop"`` or ``"trio"``.
        tasks: What the stages do: a name in `tasks`.
        stages: How many stages there are.
        workers: How many workers each stage has.
        options: Further keyword arguments of the function.
        peer: The name of the peer in whose environment the case runs.
    """

    name: str
    code: str
    items: int
    backend: str = "asyncio"
    tasks: str = "no_op"
    stages: int = 3
    workers: int = 8
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: str | None = None


@dataclass(frozen=True)
class Comparison:
    """
    A column of ratios, with what is asked of them.

    Args:
        title: The head of the column.
        base: The case that all others are compared with, or that of each case by its name. None
            judges the figures themselves.
        limits: By name of the case, the most that is allowed.
        at_least: The limits are the least that is asked instead.
    """

    title: str
    base: str | Mapping[str, str] | None
    limits: Mapping[str, float] = field(default_factory=dict)
    at_least: bool = False

    def base_of(self, name: str) -> str | None:
        """Return the case that a case is compared with."""
        return self.base.get(name) if isinstance(self.base, Mapping) else self.base

    def value(self, name: str, figures: Mapping[str, float]) -> float | None:
        """Return what is shown for a case; None if there is nothing to compare it with."""
        if self.base is None:
            return figures[name]
        base = self.base_of(name)
        return figures[name] / figures[base] if base in figures else None

    def fits(self, name: str, figures: Mapping[str, float]) -> bool | None:
        """Return whether a case is within its limit; None if none is set, or none can be judged."""
        value = self.value(name, figures)
        if name not in self.limits or value is None:
            return None
        limit = self.limits[name]
        return value >= limit if self.at_least else value <= limit


@dataclass(frozen=True)
class Workload:
    """
    Cases that are measured in interleaved rounds and shown in one table.

    Args:
        name: What it is called on the command line.
        title: One line on what is done.
        unit: What the figures are.
        figure: Makes a figure out of a measurement.
        cases: The contenders.
        comparisons: What is compared with what.
        measure: ``"module:function"``, which measures in the fresh process.
        rounds: How many rounds there are by default. On a machine that is now fast and now slow,
            the median of as many still differs by a tenth or more from one time to the next.
        note: What one must know to read the table.
        further: By head of the column, further figures of a measurement that are shown.
    """

    name: str
    title: str
    unit: str
    figure: Callable[[Case, Measured], float]
    cases: tuple[Case, ...]
    comparisons: tuple[Comparison, ...] = ()
    measure: str = "measures:whole_runs"
    rounds: int = 15
    note: str = ""
    further: Mapping[str, str] = field(default_factory=dict)

    def case(self, name: str) -> Case:
        """Return the case of that name."""
        return next(case for case in self.cases if case.name == name)


def cpu_per_item_stage(case: Case, measured: Measured) -> float:
    """Return microseconds of CPU time per item and stage."""
    return measured["cpu"] * 1e6 / (measured["items"] * case.stages)
