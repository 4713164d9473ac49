"""
The demo: an index of Python's standard library, built by a pipeline of three stages.

Read reads the source files, Parse finds their classes and functions, Load writes these to SQLite.
Some files cannot be decoded or parsed: the tests of the standard library contain such files on
purpose. These are real failures. They never stop the run, and the report lists each with its error.
"""

from __future__ import annotations

import ast
import queue
import sqlite3
import sys
import sysconfig
import tempfile
import tokenize
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TextIO

import anyio
from attrs import astuple, frozen

from .._api.pipeline import Pipeline
from .._definition.retry_policy import RetryPolicy
from .._definition.stage import Stage
from .._model.describe import leaf_exceptions
from .._model.items import Item
from .demo_report import Progress, RetryCounter, report

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

READERS = 16
# Parsing holds the GIL: more workers would only compete for it.
PARSERS = 2
LOADERS = 2
# Rows per INSERT: SQLite before 3.32 allows 999 parameters, and a row has five.
BATCH = 150

SCHEMA = """
create table modules (
    path text primary key, lines integer, classes integer, functions integer, docstring integer
);
create table functions (
    module text references modules (path), name text, line integer, public integer,
    docstring integer
);
"""


@frozen
class Source:
    """A source file: its path relative to the library, and its text."""

    path: str
    text: str


@frozen
class Function:
    """A function or method found in a source file."""

    name: str
    line: int
    public: bool
    documented: bool


@frozen
class Module:
    """The contents of one source file."""

    path: str
    lines: int
    classes: int
    documented: bool
    functions: tuple[Function, ...]


class Library:
    """The directory of the standard library."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def files(self) -> Iterator[Item]:
        """Yield the Python files except those of installed packages; the id is the path."""
        for path in sorted(self.root.rglob("*.py")):
            name = path.relative_to(self.root)
            if name.parts[0] not in ("site-packages", "dist-packages"):
                yield Item(path, id=name.as_posix())

    def read(self, path: Path) -> Source:
        """Read a file in the encoding that it declares."""
        with tokenize.open(path) as file:
            return Source(path.relative_to(self.root).as_posix(), file.read())


def statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the statements of *tree*; skip expressions, which contain no definitions."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            pending.extend(getattr(node, name, ()))


def parse(source: Source) -> Module:
    """Find the classes and functions of a source file."""
    tree = ast.parse(source.text, source.path)
    nodes = list(statements(tree))
    functions = tuple(
        Function(
            node.name,
            node.lineno,
            public=not node.name.startswith("_"),
            documented=ast.get_docstring(node, clean=False) is not None,
        )
        for node in nodes
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    return Module(
        source.path,
        lines=source.text.count("\n"),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        documented=ast.get_docstring(tree, clean=False) is not None,
        functions=functions,
    )


class Database:
    """
    A new SQLite file with one connection per worker of the Load stage.

    Raises:
        sqlite3.OperationalError: The file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._connections: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        for index in range(LOADERS):
            # Several threads use a connection, but never two at the same time.
            connection = sqlite3.connect(path, timeout=0.1, check_same_thread=False)
            if index == 0:
                connection.executescript(f"pragma journal_mode = wal;{SCHEMA}")
            connection.execute("pragma synchronous = normal")
            self._connections.put(connection)

    def close(self) -> None:
        """Close all connections."""
        for _ in range(LOADERS):
            self._connections.get().close()

    def load(self, module: Module) -> None:
        """Write a module and its functions in one transaction."""
        connection = self._connections.get()
        try:
            with connection:
                connection.execute(
                    "insert into modules values (?, ?, ?, ?, ?)",
                    (
                        module.path,
                        module.lines,
                        module.classes,
                        len(module.functions),
                        module.documented,
                    ),
                )
                for start in range(0, len(module.functions), BATCH):
                    _insert(connection, module, module.functions[start : start + BATCH])
        finally:
            self._connections.put(connection)


def _insert(
    connection: sqlite3.Connection, module: Module, functions: tuple[Function, ...]
) -> None:
    # executemany() would release the GIL for each row, and compete with the parsers to get it back.
    placeholders = ",".join(["(?, ?, ?, ?, ?)"] * len(functions))
    rows = [(module.path, *astuple(function)) for function in functions]
    parameters = [value for row in rows for value in row]
    connection.execute(f"insert into functions values {placeholders}", parameters)


def build_pipeline(library: Library, database: Database) -> Pipeline:
    """Build the pipeline of three stages."""
    return Pipeline(
        [
            # A file that cannot be decoded will not become decodable: only retry I/O errors.
            Stage("Read", READERS, [library.read], retry=RetryPolicy(on=OSError)),
            Stage("Parse", PARSERS, [parse], task_attempts=1),
            Stage(
                "Load",
                LOADERS,
                [database.load],
                # Another writer may hold the lock: retry the whole transaction.
                retry=RetryPolicy(
                    scope="stage", on=sqlite3.OperationalError, attempts=10, wait_initial=0.05
                ),
            ),
        ]
    )


async def index_library(
    library: Library, database_path: Path, limit: int | None, out: TextIO
) -> tuple[str, bool]:
    """
    Run the pipeline over *library* and show its progress on *out*.

    Returns:
        The report, and whether all files were processed. Ctrl-C stops reading the list of files;
        the files that were already read from it are finished.
    """
    files = list(islice(library.files(), limit))
    database = Database(database_path)
    try:
        pipeline = build_pipeline(library, database)
        progress = Progress(pipeline, len(files), out)
        retries = RetryCounter(pipeline)
        began = perf_counter()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(progress.show)
                # On Windows, event loops do not support signal handlers.
                await pipeline.run(files, handle_signals=sys.platform != "win32")
                group.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            # Only Ctrl-C or a closed output is caught here. Raise it without the group.
            raise leaf_exceptions(errors)[0] from None
        seconds = perf_counter() - began
        progress.finish()
    finally:
        database.close()
    stats = pipeline.get_stats()
    complete = stats.items_processed + stats.items_failed == len(files)
    text = report(pipeline, pipeline.results, retries.count, library.root, database_path, seconds)
    return text, complete


def main(backend: str, database: Path | None, limit: int | None, out: TextIO) -> bool:
    """
    Index the standard library of the running Python.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        database: The file to write the index to; an existing file is replaced. By default a new
            file in the directory for temporary files.
        limit: The highest number of files to process; None for all.
        out: The stream to write the progress and the report to.

    Returns:
        Whether all files were processed: False if a signal stopped the run.
    """
    if database is None:
        database = Path(tempfile.mkdtemp(prefix="antflow-")) / "index.db"
    library = Library(Path(sysconfig.get_path("stdlib")))
    out.write(f"Indexing {library.root} on {backend}: Read -> Parse -> Load\n")
    with warnings.catch_warnings():
        # The compiler warns about questionable code in the files that are parsed.
        warnings.simplefilter("ignore")
        text, complete = anyio.run(index_library, library, database, limit, out, backend=backend)
    out.write(f"\n{text}\n")
    return complete
