"""Interleaved rounds of measurements, each in a fresh process."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .cases import Case, Measured, Workload
from .environments import python_of

ROOT = Path(__file__).parent.parent
TIMEOUT = 600  # seconds for one measurement


@dataclass
class Outcome:
    """The measurements of a workload by name of the case, and the cases that were left out."""

    workload: Workload
    rounds: int
    measured: dict[str, list[Measured]]
    left_out: dict[str, str]

    def values(self, name: str) -> list[float]:
        """Return the figure of each round."""
        case = self.workload.case(name)
        return [self.workload.figure(case, run) for run in self.measured[name]]

    def figures(self) -> dict[str, float]:
        """Return the medians."""
        return {name: statistics.median(self.values(name)) for name in self.measured}

    def further(self, name: str, key: str) -> float:
        """Return the median of a further figure."""
        return statistics.median(run[key] for run in self.measured[name])


class CannotMeasureError(Exception):
    """A case gave no figure; the message says why."""


def measure(workload: Workload, case: Case) -> Measured:
    """Measure one case once, in a process of its own."""
    python = Path(sys.executable) if case.peer is None else python_of(case.peer)
    if python is None:
        raise CannotMeasureError("could not be installed")
    words = ["-m", f"{__package__}.child", workload.name, case.name, str(case.items)]
    env = dict(os.environ)
    if case.peer is not None:
        # What it names would be found before the packages of the peer's environment.
        env.pop("PYTHONPATH", None)
    try:
        done = subprocess.run(
            [str(python), *words],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise CannotMeasureError(f"took more than {TIMEOUT} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise CannotMeasureError(said[-1] if said else f"exit status {done.returncode}")
    # Peers may print other lines first.
    return json.loads(done.stdout.splitlines()[-1])


def run_rounds(workload: Workload, cases: list[Case], rounds: int) -> Outcome:
    """Measure *cases* in turn, *rounds* times; a case that fails is left out from then on."""
    outcome = Outcome(workload, rounds, {}, {})
    for number in range(1, rounds + 1):
        for case in cases:
            if case.name in outcome.left_out:
                continue
            try:
                measured = measure(workload, case)
            except CannotMeasureError as error:
                outcome.left_out[case.name] = str(error)
                outcome.measured.pop(case.name, None)
                report = f"left out: {error}"
            else:
                outcome.measured.setdefault(case.name, []).append(measured)
                report = f"{workload.figure(case, measured):.3g} {workload.unit}"
            print(
                f"{workload.name} {number}/{rounds}: {case.name}: {report}",
                file=sys.stderr,
                flush=True,
            )
    return outcome
