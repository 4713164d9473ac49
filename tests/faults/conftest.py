"""Counts the runs of each row of the catalogue of faults, for the table in docs/proof.md."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from antflow.testing import Exploration
from faults.kit import FIGURES

_rows: dict[int, dict[str, Any]] = {}


@pytest.fixture(autouse=True)
def _count_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    marker = request.node.get_closest_marker("row")
    if marker is None:
        yield
        return
    number, title = marker.args
    entry = _rows.setdefault(number, {"title": title, "tests": {}, "figures": {}})
    name = request.node.originalname
    figures = entry["tests"].setdefault(
        name, {"cases": 0, "runs": {"asyncio": 0, "trio": 0}, "steps": 0, "seconds": 0.0}
    )
    run = Exploration.run

    def counting_run(self: Exploration, *args: Any) -> Any:
        figures["runs"][self.backend] += 1
        try:
            return run(self, *args)
        finally:
            figures["steps"] += self.steps

    monkeypatch.setattr(Exploration, "run", counting_run)
    began = time.perf_counter()
    yield
    figures["cases"] += 1
    figures["seconds"] += time.perf_counter() - began
    # Garbage that warns when it is collected must fail this test, not a later one.
    gc.collect()


@pytest.fixture
def record_figure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return a function that records a figure for the row of the test: its name and its value."""
    number, _ = request.node.get_closest_marker("row").args
    figures: dict[str, str] = _rows[number]["figures"]
    return figures.__setitem__


def pytest_sessionfinish() -> None:
    if FIGURES:
        Path(FIGURES).write_text(json.dumps(_rows, indent=1), encoding="utf-8")
