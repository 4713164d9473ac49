"""The floor plan: imports go down only, and the public names are what they say."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import antflow

SOURCE = Path(antflow.__file__).parent

# From the ground up. A module imports only what stands before its own floor, or before it on it.
FLOORS: dict[str, list[str]] = {
    "words": ["_errors", "_items", "_events", "_stats"],
    "rules": [
        "_checks",
        "_callables",
        "_cancellation",
        "_backend_hints",
        "_retry",
        "_limits",
        "_bus",
        "_tracker",
    ],
    "plan": ["_stage", "_source"],
    "hands": ["_worker", "_task_runner", "_state"],
    "path": ["_line", "_entrance", "_sink", "_pool", "_flow", "_feeder"],
    "life": ["_host", "_background", "_run"],
    "face": ["_observable", "_stream", "_live", "_signals", "_pipeline"],
    "outside": ["_demo_report", "demo", "__main__"],
}
ORDER = [module for floor in FLOORS.values() for module in floor]
MODULES = sorted(path.stem for path in SOURCE.glob("*.py") if path.stem != "__init__")


def imports(module: str) -> tuple[set[str], set[str]]:
    """Return the modules of ours and the packages of others that *module* imports."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(ast.parse((SOURCE / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            ours.update([node.module] if node.module else [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom):
            others.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Import):
            others.update(alias.name.partition(".")[0] for alias in node.names)
    return ours, others


TESTING = SOURCE / "testing"
TESTING_ORDER = [
    "_waiting",
    "_clock",
    "_schedule",
    "_asyncio_loop",
    "_trio_queue",
    "_explore",
]


def floor_of(module: str) -> str:
    return next(floor for floor, modules in FLOORS.items() if module in modules)


def test_the_floor_plan_is_complete() -> None:
    assert sorted(ORDER) == MODULES


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_strictly_down(module: str) -> None:
    ours, _ = imports(module)
    # Annotations alone may look up: _errors names the type of the results that it carries.
    ours -= {"_items"} if module == "_errors" else set()
    assert ours <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", FLOORS["hands"] + FLOORS["path"] + FLOORS["life"])
def test_the_engine_knows_neither_tracker_nor_what_stands_outside(module: str) -> None:
    ours, _ = imports(module)
    assert not ours & {"_tracker", *FLOORS["outside"]}


@pytest.mark.parametrize("module", ORDER)
def test_only_the_allowed_packages_are_imported(module: str) -> None:
    _, others = imports(module)
    foreign = (others - set(sys.stdlib_module_names)) | (others & {"asyncio"})
    allowed = {"attrs", "exceptiongroup"}
    if floor_of(module) != "words":
        allowed.add("anyio")
    if module == "_retry":
        allowed.add("stamina")
    if module in ("_background", "_cancellation", "__main__"):  # a comment there proves the need
        allowed.add("asyncio")
    assert foreign <= allowed


def test_only_the_run_opens_a_task_group_that_carries_items() -> None:
    opening = {
        module
        for module in ORDER
        if floor_of(module) != "outside"
        and "create_task_group" in (SOURCE / f"{module}.py").read_text(encoding="utf-8")
    }
    # The host is beside: its one child is the run as a whole.
    assert opening == {"_run", "_host"}


def test_public_names_are_sorted_complete_and_shown_as_ours() -> None:
    assert sorted(antflow.__all__) == antflow.__all__
    exported = {
        name
        for name, value in vars(antflow).items()
        if isinstance(value, type) and not name.startswith("_")
    }
    assert exported == set(antflow.__all__)
    for name in antflow.__all__:
        public = getattr(antflow, name)
        assert public.__module__ == "antflow"
        assert public.__doc__
        for attribute, value in vars(public).items():
            if callable(value) and not attribute.startswith("_"):
                assert value.__doc__, f"{name}.{attribute} has no docstring"
