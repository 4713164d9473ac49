"""The floor plan: imports go down only, and the public names are what they say."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import antflow
import antflow.testing

SOURCE = Path(antflow.__file__).parent

# From the ground up. A module imports only what stands before its own floor, or before it on it.
FLOORS: dict[str, list[str]] = {
    "words": [
        "_model.errors",
        "_model.fast_frozen",
        "_model.items",
        "_model.events",
        "_model.snapshots",
    ],
    "rules": [
        "_definition.validation",
        "_definition.callables",
        "_backend.cancellation",
        "_backend.context",
        "_backend.hints",
        "_definition.retry_policy",
        "_definition.limits",
        "_events.event_bus",
        "_events.status_tracker",
    ],
    "plan": ["_definition.stage", "_definition.inputs"],
    "hands": ["_state.worker", "_tasks.watchdog", "_tasks.task_runner", "_state.run_state"],
    "path": [
        "_workers.priority_heap",
        "_workers.queues",
        "_workers.result_sink",
        "_workers.stragglers",
        "_workers.pool",
        "_events.publishing",
        "_run.feeder",
        "_workers.worker_loop",
    ],
    "life": [
        "_backend.task_groups",
        "_backend.background",
        "_backend.cancellation_watch",
        "_run.run",
    ],
    "face": [
        "_state.inspection",
        "_api.result_stream",
        "_api.live_run",
        "_run.signals",
        "_events.callbacks",
        "_api.pipeline",
    ],
    "outside": ["_cli.demo_report", "_cli.demo", "_cli.main", "__main__"],
}
# The outbuilding for users who test: from the ground up, too. Nothing of the house imports it.
TESTING = [
    "_waiting",
    "_clock",
    "_schedule",
    "_asyncio_loop",
    "_trio_queue",
    "_explore",
    "_keys",
    "_tasks",
    "_entries",
    "_log",
    "_broken",
    "_accounts",
    "_grammar",
    "_bounds",
    "_promises",
    "_strategies",
]
# The rooms of the outbuilding that reach into the two loops themselves.
LOOPS = {"_waiting", "_clock", "_asyncio_loop", "_trio_queue", "_explore"}
ORDER = [module for floor in FLOORS.values() for module in floor]
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if path.stem != "__init__" and path.parent.name != "testing"
)


def text_of(module: str) -> str:
    return (SOURCE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def imports(module: str) -> tuple[set[str], set[str]]:
    """Return the modules of ours and the packages of others that *module* imports."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(ast.parse(text_of(module))):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = module.split(".")[: -node.level]
            if node.module:
                ours.add(".".join([*package, node.module]))
            else:
                ours.update(".".join([*package, alias.name]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            others.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Import):
            others.update(alias.name.partition(".")[0] for alias in node.names)
    return ours, others


def nodes_at_import(module: str) -> list[ast.stmt]:
    """Return what runs when *module* of the outbuilding is imported, but for its functions."""
    return ast.parse((SOURCE / "testing" / f"{module}.py").read_text(encoding="utf-8")).body


def floor_of(module: str) -> str:
    return next(floor for floor, modules in FLOORS.items() if module in modules)


def test_the_floor_plan_is_complete() -> None:
    assert sorted(ORDER) == MODULES


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_strictly_down(module: str) -> None:
    ours, _ = imports(module)
    # Annotations alone may look up: _errors names the type of the results that it carries.
    ours -= {"_model.items"} if module == "_model.errors" else set()
    assert ours <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", FLOORS["hands"] + FLOORS["path"] + FLOORS["life"])
def test_the_engine_knows_neither_tracker_nor_what_stands_outside(module: str) -> None:
    ours, _ = imports(module)
    assert not ours & {"_events.status_tracker", *FLOORS["outside"]}


def test_the_plan_of_the_outbuilding_is_complete() -> None:
    modules = {path.stem for path in (SOURCE / "testing").glob("*.py")} - {"__init__"}
    assert sorted(TESTING) == sorted(modules)


@pytest.mark.parametrize("module", TESTING)
def test_the_outbuilding_imports_down_and_no_tool_before_it_is_used(module: str) -> None:
    house: set[str] = set()
    mates: set[str] = set()
    others: set[str] = set()
    for node in nodes_at_import(module):
        if isinstance(node, ast.ImportFrom):
            {0: others, 1: mates, 2: house}[node.level].add(str(node.module))
        elif isinstance(node, ast.Import):
            others.update(alias.name for alias in node.names)
    assert house <= set(ORDER) - set(FLOORS["outside"])
    assert mates <= set(TESTING[: TESTING.index(module)])
    packages = {name.partition(".")[0] for name in others}
    standard = set(sys.stdlib_module_names) - {"asyncio"}
    assert packages - standard <= {"anyio", "attrs"} | (
        {"asyncio", "trio"} if module in LOOPS else set()
    )


def test_the_house_stands_without_the_tools_of_the_outbuilding() -> None:
    code = "import sys, antflow; print([n for n in sys.argv[1:] if n in sys.modules])"
    tools = ["antflow.testing", "hypothesis", "pytest", "trio"]
    done = subprocess.run([sys.executable, "-c", code, *tools], capture_output=True, text=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("module", ORDER)
def test_only_the_allowed_packages_are_imported(module: str) -> None:
    _, others = imports(module)
    foreign = (others - set(sys.stdlib_module_names)) | (others & {"asyncio"})
    allowed = {"attrs", "exceptiongroup"}
    if floor_of(module) != "words":
        allowed.add("anyio")
    if module == "_definition.retry_policy":
        allowed.add("stamina")
    if module in (
        "_backend.background",
        "_backend.cancellation",
        "_backend.cancellation_watch",
        "_cli.main",
    ):  # a comment there proves the need
        allowed.add("asyncio")
    assert foreign <= allowed


def test_only_the_run_opens_a_task_group_that_carries_items() -> None:
    opening = {
        module
        for module in ORDER
        if floor_of(module) != "outside" and "create_task_group" in text_of(module)
    }
    # The host is beside: its one child is the run as a whole.
    assert opening == {"_run.run", "_backend.task_groups"}


@pytest.mark.parametrize("package", [antflow, antflow.testing])
def test_public_names_are_sorted_complete_and_shown_as_ours(package: ModuleType) -> None:
    assert sorted(package.__all__) == package.__all__
    exported = {
        name
        for name, value in vars(package).items()
        if isinstance(value, (type, FunctionType)) and not name.startswith("_")
    }
    assert exported == set(package.__all__)
    for name in package.__all__:
        public = getattr(package, name)
        assert public.__module__ == package.__name__
        assert public.__doc__
        for attribute, value in vars(public).items():
            if callable(value) and not attribute.startswith("_"):
                assert value.__doc__, f"{name}.{attribute} has no docstring"
