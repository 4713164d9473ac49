"""Counts the runs behind each row of the catalogue, for the table of the slow session."""

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
def _figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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

    def counted(self: Exploration, *args: Any) -> Any:
        figures["runs"][self.backend] += 1
        try:
            return run(self, *args)
        finally:
            figures["steps"] += self.steps

    monkeypatch.setattr(Exploration, "run", counted)
    began = time.perf_counter()
    yield
    figures["cases"] += 1
    figures["seconds"] += time.perf_counter() - began
    # What was left behind says so now, in the test that left it.
    gc.collect()


@pytest.fixture
def note_figure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Give a function that keeps a figure of the test's row, for the same table: name and value."""
    number, _ = request.node.get_closest_marker("row").args
    figures: dict[str, str] = _rows[number]["figures"]
    return figures.__setitem__


def pytest_sessionfinish() -> None:
    if FIGURES:
        Path(FIGURES).write_text(json.dumps(_rows, indent=1), encoding="utf-8")
