"""What workloads are made of: cases, comparisons, bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Measured = dict[str, Any]  # what the process of one measurement prints


@dataclass(frozen=True)
class Case:
    """
    One contender at one size.

    Args:
        name: The name in the tables.
        code: ``"module:function"`` in this package; the function prepares a run.
        items: The number of items.
        backend: ``"asyncio"``, ``"uvloop"`` or ``"trio"``.
        tasks: What the task functions do: a name in `tasks`.
        stages: The number of stages.
        workers: The number of workers of each stage.
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
    A column of ratios, with their bounds.

    Args:
        title: The head of the column.
        base: The case that all others are compared with, or that of each case by its name. With
            None, the bounds apply to the figures themselves.
        limits: By name of the case, the highest value that is allowed.
        at_least: Whether the limits are the lowest values that are allowed.
    """

    title: str
    base: str | Mapping[str, str] | None
    limits: Mapping[str, float] = field(default_factory=dict)
    at_least: bool = False

    def base_of(self, name: str) -> str | None:
        """Return the case that a case is compared with."""
        return self.base.get(name) if isinstance(self.base, Mapping) else self.base

    def value(self, name: str, figures: Mapping[str, float]) -> float | None:
        """Return the value in the column; None if there is nothing to compare it with."""
        if self.base is None:
            return figures[name]
        base = self.base_of(name)
        return figures[name] / figures[base] if base in figures else None

    def fits(self, name: str, figures: Mapping[str, float]) -> bool | None:
        """Return whether a case is within its limit; None without a limit or a value."""
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
        name: The name on the command line.
        title: One line that describes it.
        unit: The unit of the figures.
        figure: Computes the figure of a measurement.
        cases: The contenders.
        comparisons: The columns of ratios.
        measure: ``"module:function"``; the function measures in the fresh process.
        rounds: The default number of rounds. On a shared machine, whose speed changes, the median
            of 15 rounds still varies by a tenth or more.
        note: A note below the table.
        further: More columns: by heading, the key of a figure in the measurement.
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
