"""The layout: imports go down only, names show what is public, and modules are small."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import antflow
import antflow.testing

SOURCE = Path(antflow.__file__).parent
DOCS = Path(__file__).parent.parent / "docs"

# Top layer first. A module imports only from lower layers, and from modules that are listed after
# it in its own layer.
LAYERS: dict[str, list[str]] = {
    "__main__": ["__main__"],
    "_cli": ["main", "demo", "demo_report"],
    "_api": ["pipeline", "arguments", "block", "current", "live_run", "result_stream"],
    "_run": ["run_host", "signals", "run", "early_end", "wiring", "feeds", "feeder", "outbox"],
    "_workers": [
        "worker_loop",
        "processing",
        "outcomes",
        "pool",
        "outlets",
        "queues",
        "result_sink",
        "scaling",
        "stragglers",
    ],
    "_tasks": [
        "task_runner",
        "calls",
        "retries",
        "retry_report",
        "concurrency_limits",
        "watchdog",
    ],
    "_events": [
        "callbacks",
        "status_tracker",
        "tracked_items",
        "item_columns",
        "event_columns",
        "publishing",
        "event_bus",
    ],
    "_state": ["inspection", "run_state", "stage_state", "worker", "result_store", "lifecycle"],
    "_definition": ["inputs", "stage", "retry_policy", "limits", "validation", "callables"],
    "_executors": ["threads"],
    "_backend": [
        "task_groups",
        "background",
        "hints",
        "cancellation_watch",
        "cancellation",
        "loops",
        "context",
        "fairness",
    ],
    "_model": [
        "snapshots",
        "events",
        "record",
        "results",
        "items",
        "fast_frozen",
        "plain_data",
        "errors",
        "tracebacks",
        "describe",
    ],
}
# `antflow.testing` has its own layers, top layer first. No module of the engine imports it.
TESTING_LAYERS: dict[str, list[str]] = {
    "testing": ["_strategies", "_tasks"],
    "testing._promises": [
        "check",
        "bounds",
        "event_order",
        "accounting",
        "violation",
        "event_log",
        "entries",
    ],
    "testing._equality": ["testing._equality"],
    "testing._exploration": [
        "explore",
        "trio_queue",
        "asyncio_loop",
        "schedule",
        "clock",
        "blocked_tasks",
    ],
}


def listed(layers: dict[str, list[str]]) -> list[str]:
    return [
        module if module == package else f"{package}.{module}"
        for package, modules in layers.items()
        for module in modules
    ]


ORDER = listed(LAYERS)
TESTING_ORDER = listed(TESTING_LAYERS)
MODULES = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in sorted(SOURCE.rglob("*.py"))
]
# Besides `_backend`, these may import asyncio or trio; a comment above the import says why.
LOOPS = {"_cli.main", "testing.__init__"} | {
    f"testing._exploration.{module}" for module in TESTING_LAYERS["testing._exploration"]
}


def text_of(module: str) -> str:
    return (SOURCE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def imports(module: str, statements: list[ast.stmt] | None = None) -> tuple[set[str], set[str]]:
    """Return the modules of antflow and the other packages that *module* imports."""
    ours: set[str] = set()
    others: set[str] = set()
    tree = ast.parse(text_of(module))
    for node in ast.walk(tree) if statements is None else statements:
        if isinstance(node, ast.ImportFrom) and node.level:
            package = module.split(".")[: -node.level]
            package += node.module.split(".") if node.module else []
            if ".".join(package) in MODULES:
                ours.add(".".join(package))
            else:
                ours.update(".".join([*package, alias.name]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            others.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Import):
            others.update(alias.name.partition(".")[0] for alias in node.names)
    return ours, others


def functions(module: str) -> list[tuple[str, int]]:
    """Return the name and the number of lines of each function of *module*."""
    return [
        (f"{module}.{node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(ast.parse(text_of(module)))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def is_public(module: str) -> bool:
    return not any(part.startswith("_") for part in module.split(".") if part != "__main__")


def test_each_module_belongs_to_a_layer() -> None:
    packages = {module for module in MODULES if module.endswith("__init__")}
    assert sorted(ORDER + TESTING_ORDER) == sorted(set(MODULES) - packages)


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_strictly_down(module: str) -> None:
    ours, _ = imports(module)
    assert ours <= set(ORDER[ORDER.index(module) + 1 :])


@pytest.mark.parametrize("module", TESTING_ORDER)
def test_antflow_testing_imports_down_and_no_tool_before_it_is_used(module: str) -> None:
    ours, others = imports(module, ast.parse(text_of(module)).body)
    below = set(TESTING_ORDER[TESTING_ORDER.index(module) + 1 :])
    engine = {name for name in ORDER if not name.startswith(("__main__", "_cli."))}
    assert ours <= below | engine
    standard = set(sys.stdlib_module_names) - {"asyncio"}
    assert others - standard <= {"anyio", "attrs"} | (
        {"asyncio", "trio"} if module in LOOPS else set()
    )


def test_importing_antflow_loads_no_testing_tools() -> None:
    code = "import sys, antflow; print([n for n in sys.argv[1:] if n in sys.modules])"
    tools = ["antflow.testing", "antflow._cli", "hypothesis", "pytest", "trio", "rich"]
    done = subprocess.run([sys.executable, "-c", code, *tools], capture_output=True, text=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("module", ORDER)
def test_only_the_allowed_packages_are_imported(module: str) -> None:
    _, others = imports(module)
    foreign = (others - set(sys.stdlib_module_names)) | (others & {"asyncio"})
    package = module.partition(".")[0]
    allowed = {"attrs", "exceptiongroup"}
    if package != "_model":
        allowed.add("anyio")
    if module in ("_tasks.retries", "_tasks.retry_report"):
        allowed.add("stamina")
    if package == "_backend" or module in LOOPS:
        allowed.add("asyncio")
    assert foreign <= allowed


@pytest.mark.parametrize("module", [*ORDER, *TESTING_ORDER])
def test_a_comment_says_why_asyncio_or_trio_is_imported(module: str) -> None:
    lines = text_of(module).splitlines()
    importing = [
        node.lineno
        for node in ast.walk(ast.parse(text_of(module)))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and {*(alias.name for alias in node.names), getattr(node, "module", "")}
        & {"asyncio", "trio"}
    ]
    if importing:
        # One comment, above the first import, is enough.
        assert lines[min(importing) - 2].lstrip().startswith("#")


def test_only_the_run_opens_a_task_group_for_items() -> None:
    opening = {
        module
        for module in ORDER
        if not module.startswith("_cli.") and "create_task_group(" in text_of(module)
    }
    # The task group of `run_host` contains whole runs, beside the body of a block.
    assert opening == {"_run.run", "_run.run_host"}


def test_private_packages_have_empty_inits_and_plain_file_names() -> None:
    for module in MODULES:
        *packages, name = module.split(".")
        if packages and packages[-1].startswith("_"):
            assert name == "__init__" or not name.startswith("_"), module
            assert name != "__init__" or not text_of(module), module


def test_exactly_the_documented_modules_have_public_names() -> None:
    documented = re.findall(r"automodule:: ([\w.]+)", (DOCS / "api.md").read_text(encoding="utf-8"))
    public = [
        f"antflow.{module}".removesuffix(".__init__")
        for module in MODULES
        # `python -m antflow` is run, not imported.
        if is_public(module.removesuffix("__init__")) and module != "__main__"
    ]
    assert sorted(documented) == sorted(public)


def test_modules_and_functions_are_small() -> None:
    lines = {module: len(text_of(module).splitlines()) for module in ORDER + TESTING_ORDER}
    assert {module: count for module, count in lines.items() if count > 300} == {}
    assert statistics.median(lines.values()) <= 130
    long = {name for module in lines for name, count in functions(module) if count > 70}
    assert long == {"_workers.worker_loop.work"}


def test_the_page_on_layers_lists_the_modules_in_order() -> None:
    page = (DOCS / "architecture" / "layers.md").read_text(encoding="utf-8")
    layers: dict[str, list[str]] = {}
    for title, module in re.findall(r"^(?:## `([\w.]+)`|\| `([\w.]+)` \|)", page, re.MULTILINE):
        if title:
            layers[title] = []
        else:
            layers[list(layers)[-1]].append(module)
    assert list(layers.items()) == [*LAYERS.items(), *TESTING_LAYERS.items()]


TRACE = """
import asyncio, sys
from pathlib import Path
import antflow

root = Path(antflow.__file__).parent
names, calls = {}, set()

def module_of(frame):
    path = Path(frame.f_code.co_filename)
    if root not in path.parents:
        return None
    return ".".join(path.relative_to(root).with_suffix("").parts)

def profile(frame, event, argument):
    if event == "call" and (callee := module_of(frame)):
        names[callee] = True
        if frame.f_back is not None and (caller := module_of(frame.f_back)):
            calls.add((caller, callee))

async def same(value):
    return value

async def main():
    sys.setprofile(profile)
    results = await pipeline.run(["item"])
    sys.setprofile(None)
    assert results.values == ["item"]

stages = [antflow.Stage(name, tasks=[same]) for name in "AB"]
pipeline = antflow.Pipeline(stages)
asyncio.run(main())
print(*names)
for caller, callee in calls:
    print(caller, callee)
"""


def test_one_item_through_two_stages_calls_few_modules_and_only_downwards() -> None:
    """The modules are those that the page on the path of an item lists."""
    ran = subprocess.run([sys.executable, "-c", TRACE], capture_output=True, text=True)
    assert not ran.stderr
    first, *calls = ran.stdout.splitlines()
    page = (DOCS / "architecture" / "item.md").read_text(encoding="utf-8")
    listed_modules = re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)
    assert listed_modules == sorted(listed_modules, key=ORDER.index)
    assert len(listed_modules) <= 18
    # On Python 3.10, Ctrl-C needs one more module.
    help_with_interrupts = {"_backend.cancellation"} if sys.version_info < (3, 11) else set()
    assert set(first.split()) == set(listed_modules) | help_with_interrupts
    for call in calls:
        caller, callee = call.split()
        assert ORDER.index(caller) <= ORDER.index(callee), call


@pytest.mark.parametrize("package", [antflow, antflow.testing])
def test_public_names_are_sorted_complete_and_documented(package: ModuleType) -> None:
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
