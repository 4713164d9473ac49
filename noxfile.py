"""
The checks of antflow: ``nox`` runs lint, types, docs, and the tests.

The tests run on every installed Python, and once with the lowest versions of the dependencies.

They need only nox. ``nox -l`` lists the sessions; what follows ``--`` is passed to the tool that a
session runs, as in ``nox -s tests-3.12 -- -k name``.
"""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "tests", "lowest", "docs"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = [
    match[1]
    for classifier in PYPROJECT["project"]["classifiers"]
    if (match := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier))
]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


def directory_of_python(version: str) -> Path | None:
    """Find an interpreter of pyenv or uv, which nox does not look for."""
    homes = [
        Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions",
        Path.home() / ".local" / "share" / "uv" / "python",
    ]
    for home in homes:
        for directory in sorted(home.glob(f"*{version}.*"), reverse=True):
            exact = re.search(rf"(^|-){re.escape(version)}\.\d", directory.name)
            if exact and (directory / "bin" / f"python{version}").exists():
                return directory / "bin"
    return None


# The running interpreter comes first. It is used even if its version is not in the classifiers.
if RUNNING not in PYTHONS:
    PYTHONS.append(RUNNING)
os.environ["PATH"] = os.pathsep.join(
    [
        str(Path(sys.executable).parent),
        *(str(found) for version in PYTHONS if (found := directory_of_python(version))),
        os.environ["PATH"],
    ]
)
# A missing Python is skipped with a message, even if CI=true; the CI workflow makes it an error.
nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "virtualenv"


def dependency_group(name: str) -> list[str]:
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*dependency_group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types inside the library, and the public types as users see them."""
    session.install(*dependency_group("typing"), "-e", ".")
    session.run("mypy")
    session.run("mypy", "--package", "antflow", "--python-version", "3.10")
    session.run("mypy", "tests/typing", "examples")
    session.run("pyright")


def build_wheel(session: nox.Session) -> str:
    """Build the wheel to be tested, and return its path."""
    directory = Path(session.create_tmp()).resolve()
    for old in directory.glob("*.whl"):
        old.unlink()
    session.run(
        "python", "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={directory}", "."
    )
    (wheel,) = directory.glob("*.whl")
    return str(wheel)


def run_tests(session: nox.Session, *install: str, schedules: int = 60) -> None:
    session.install("pip")
    session.install(build_wheel(session), *install)
    data = Path(session.create_tmp()).resolve() / "coverage"
    # Schedules are the same on each Python. To save time, most are explored on one Python only.
    env = {"COVERAGE_FILE": str(data), "ANTFLOW_SCHEDULES": str(schedules)}
    pytest = ("coverage", "run", "-m", "pytest")
    if session.posargs:
        session.run(*pytest, *session.posargs, env=env)
        return
    session.run("coverage", "erase", env=env)
    # The catalogue of faults takes half of the time, so it runs in parallel with the other tests.
    # These cover each line by themselves, so the catalogue runs without coverage.
    with ThreadPoolExecutor() as pool:
        catalogue = pool.submit(session.run, "pytest", "-q", "tests/faults", env=env, silent=True)
        # To save time, bugs are planted on one Python only.
        planted = [] if schedules == 300 else ["--ignore=tests/testing/test_planted_bugs.py"]
        session.run(*pytest, "-q", "--ignore=tests/faults", *planted, env=env)
        session.log(catalogue.result())
    session.run("coverage", "combine", "--quiet", env=env)
    session.run("coverage", "report", env=env)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Test the built wheel, and require full coverage of lines and branches."""
    schedules = 300 if session.python == RUNNING or session.posargs else 60
    run_tests(session, *dependency_group("tests"), schedules=schedules)


@nox.session(default=False)
def proof(session: nox.Session) -> None:
    """Run the catalogue of faults under 10,000 schedules each, and write docs/proof.md (slow)."""
    session.install("pip")
    session.install(build_wheel(session), *dependency_group("tests"))
    figures = Path(session.create_tmp()).resolve() / "figures.json"
    words = ("-o", "faulthandler_timeout=3600", "tests/faults", *session.posargs)
    session.run("pytest", *words, env={"ANTFLOW_PROOF": str(figures)})
    if not session.posargs:
        session.run("python", "docs/write_proof.py", str(figures), "docs/proof.md")


@nox.session
def lowest(session: nox.Session) -> None:
    """Test the built wheel against the lowest versions that it allows."""
    pinned = [
        re.sub(r">=([\d.]+).*", r"==\1", requirement)
        for requirement in PYPROJECT["project"]["dependencies"]
    ]
    run_tests(session, *dependency_group("tests"), *pinned)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; warnings are errors. (Its code is run by the tests.)"""
    # The reference page of antflow.testing imports the module, which needs the extra.
    session.install(".[testing]", *dependency_group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", "docs/_build")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure the cost of antflow, and write docs/benchmarks.md; `-- --list` names the parts."""
    session.install(".[trio,uvloop]")
    session.run("python", "-m", "benchmarks", *session.posargs)
