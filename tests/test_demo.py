"""The command line, and the demo on a small library."""

from __future__ import annotations

import io
import logging
import os
import runpy
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from antflow._cli import demo
from antflow._cli import main as command_line

GOOD = '''"""A module."""

class Box:
    def open(self):
        """Open it."""
        def inner(): pass

    async def close(self): pass

if True:
    try:
        def guarded(): pass
    except ValueError:
        def _private(): pass
'''


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = tmp_path / "lib"
    (root / "package").mkdir(parents=True)
    (root / "site-packages").mkdir()
    (root / "good.py").write_text(GOOD)
    (root / "package" / "many.py").write_text("".join(f"def f{n}(): pass\n" for n in range(400)))
    (root / "broken.py").write_text("def f(:\n")
    (root / "undecodable.py").write_bytes(b"name = '\xff\xfe'\n")
    (root / "site-packages" / "not_ours.py").write_text("")
    monkeypatch.setattr(demo.sysconfig, "get_path", lambda name: str(root))
    logger = logging.getLogger("antflow")
    before = list(logger.handlers)
    yield root
    logger.handlers[:] = before


def query(database: Path, text: str) -> Any:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(text).fetchall()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_demo_indexes_a_library_and_reports(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    database = tmp_path / "index.db"
    assert command_line.main(["demo", "--backend", backend, "--db", str(database)]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert f"Indexing {library} on {backend}" in output
    assert "    4 of 4 files  2 failed" in output
    assert "Files that failed:\n  broken.py  Parse: SyntaxError: invalid syntax" in output
    assert "  undecodable.py  Read: " in output
    assert "\r" not in output
    rows = [line for line in output.splitlines() if line[26:28] == "  "]
    table = dict(line.strip().split("  ", 1) for line in rows)
    assert table["files"] == "4"
    assert table["failed"] == "2  (SyntaxError 2)"
    assert table["functions"] == "405"
    assert table["public without docstring"] == "403"
    assert "over its workers" in table["busiest stage"]
    assert "files/s" in table["speed"]
    modules = query(database, "select path, lines, classes, functions, docstring from modules")
    assert sorted(modules) == [("good.py", 14, 1, 5, 1), ("package/many.py", 400, 0, 400, 0)]
    functions = query(database, "select name, public, docstring from functions where line = 4")
    assert functions == [("open", 1, 1), ("f3", 1, 0)] or functions == [
        ("f3", 1, 0),
        ("open", 1, 1),
    ]
    # The printed command works.
    command = output.splitlines()[-1]
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(400, 'package/many.py')", "(14, 'good.py')"]
    # A second run replaces the index.
    assert command_line.main(["demo", "--db", str(database), "--limit", "1"]) == 0
    assert query(database, "select count(*) from modules") == [(0,)]


def test_a_report_without_failures_has_no_list_of_failures(library: Path, tmp_path: Path) -> None:
    (library / "broken.py").unlink()
    (library / "undecodable.py").unlink()
    out = Terminal()
    demo.main("asyncio", tmp_path / "index.db", None, out)
    text = out.getvalue()
    assert "Files that failed" not in text
    # On a terminal, one line is redrawn.
    assert "\r[████████████████████████]     2 of 2 files" in text


def test_the_picture_of_the_demo_shows_its_progress_line_at_four_moments() -> None:
    picture = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "picture.py"))
    states = [f"\r[bar] {done:5} of 200 files\x1b[K" for done in range(0, 201, 20)]
    written = "".join(["Indexing\n", *states, "\n\n", "x" * 200])
    lines = picture["screen"](written)
    shown = [f"[bar] {done:5} of 200 files" for done in (40, 100, 140, 200)]
    assert lines == ["Indexing", *shown, "", "x" * 99 + "…"]
    assert picture["styled"](lines[1]).plain == lines[1]


def test_the_default_database_is_a_new_file(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    assert command_line.main(["demo"]) == 0
    assert (tmp_path / "index.db").exists()
    assert str(tmp_path / "index.db") in capsys.readouterr().out


@pytest.mark.virtual_time
async def test_progress_is_written_at_regular_intervals(library: Path, tmp_path: Path) -> None:
    import anyio

    database = demo.Database(tmp_path / "index.db")
    out = io.StringIO()
    progress = demo.Progress(demo.build_pipeline(demo.Library(library), database), 7, out)
    with anyio.move_on_after(7):
        await progress.show()
    database.close()
    assert out.getvalue().count("0 of 7 files") == 3


async def test_a_load_is_retried_while_the_database_is_locked(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = []
    insert = demo._insert

    def locked_once(connection: Any, module: Any, functions: Any) -> None:
        if not failed:
            failed.append(module.path)
            raise sqlite3.OperationalError("database is locked")
        insert(connection, module, functions)

    monkeypatch.setattr(demo, "_insert", locked_once)
    out = io.StringIO()
    report, complete = await demo.index_library(
        demo.Library(library), tmp_path / "index.db", None, out
    )
    assert complete
    assert "retries in Load  1" in report
    # The transaction was rolled back: no row was inserted twice.
    assert query(tmp_path / "index.db", "select count(*) from modules") == [(2,)]
    assert query(tmp_path / "index.db", "select count(*) from functions") == [(405,)]


def test_without_trio_the_demo_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "find_spec", lambda name: None)
    assert command_line.main(["demo", "--backend", "trio"]) == 2
    assert "pip install trio" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("notes.txt", "is not an index of this demo"),
        ("other.db", "is not an index of this demo"),
        ("directory", "exists and is not a file"),
        ("missing/index.db", "there is no directory"),
    ],
)
def test_a_file_of_the_user_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "directory").mkdir()
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("create table precious (a)")
    assert command_line.main(["demo", "--db", str(tmp_path / name)]) == 2
    assert words in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5"])
def test_a_bad_limit_is_rejected(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command_line.main(["demo", f"--limit={limit}"])
    assert caught.value.code == 2
    assert f"must be a whole number of at least 1, got '{limit}'" in capsys.readouterr().err


def test_ctrl_c_ends_the_demo_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "main", interrupted)
    assert command_line.main(["demo"]) == 130
    assert "antflow: interrupted; the index" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="event loops do not support signal handlers")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ctrl_c_finishes_the_files_that_were_read(
    backend: str,
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The report covers the files read before the signal; the exit status shows the signal."""
    original = demo.Library.read

    def read(self: demo.Library, path: Path) -> demo.Source:
        if path.name == "interrupted.py":
            signal.raise_signal(signal.SIGINT)
        return original(self, path)

    async def interrupted(self: demo.Library, path: Path) -> demo.Source:
        return read(self, path)

    (library / "aaa_interrupted").mkdir()
    (library / "aaa_interrupted" / "interrupted.py").touch()
    for number in range(2000):
        (library / "aaa_interrupted" / f"later{number}.py").touch()
    monkeypatch.setattr(demo.Library, "read", interrupted)
    database = tmp_path / "index.db"
    assert command_line.main(["demo", "--db", str(database), "--backend", backend]) == 130
    out, err = capsys.readouterr()
    assert err.endswith("antflow: interrupted; the index contains the files loaded so far\n")
    loaded = query(database, "select count(*) from modules")[0][0]
    assert loaded < 2000
    assert "files" in out


def test_ctrl_c_in_a_task_raises_a_plain_keyboard_interrupt(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On trio it may be raised in any loop task; on asyncio the runner handles it."""

    async def interrupted(self: Any, path: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.Library, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.main("trio", tmp_path / "index.db", None, io.StringIO())


def test_a_directory_that_is_not_writable_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line.os, "access", lambda path, mode: False)
    assert command_line.main(["demo", "--db", str(tmp_path / "index.db")]) == 2
    assert "is not writable" in capsys.readouterr().err


def test_an_empty_file_is_replaced(library: Path, tmp_path: Path) -> None:
    (tmp_path / "index.db").touch()
    assert command_line.main(["demo", "--db", str(tmp_path / "index.db")]) == 0


def test_an_error_of_the_file_system_is_printed_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "main", full)
    assert command_line.main(["demo"]) == 2
    assert capsys.readouterr().err == "antflow: [Errno 28] No space left on device\n"


def test_a_closed_pipe_prints_no_traceback(library: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from antflow._cli import demo, main;"
        f"demo.sysconfig.get_path = lambda name: {str(library)!r};"
        f"sys.exit(main.main(['demo', '--db', {str(tmp_path / 'index.db')!r}]))"
    )
    script = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} | head -c 1 >/dev/null"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_a_closed_output_sets_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*args: Any) -> None:
        raise BrokenPipeError

    replaced: list[Any] = []
    monkeypatch.setattr(demo, "main", closed)
    monkeypatch.setattr(command_line.sys, "stdout", type("Out", (), {"fileno": lambda self: 7})())
    monkeypatch.setattr(command_line.os, "dup2", lambda new, old: replaced.append((new, old)))
    assert command_line.main(["demo"]) == 1
    ((opened, number),) = replaced
    os.close(opened)
    assert number == 7


def test_python_m_antflow_is_the_same_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["antflow", "--version"])
    monkeypatch.delitem(sys.modules, "antflow._cli.main")
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("antflow", run_name="__main__")
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("antflow ")
