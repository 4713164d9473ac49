"""The command line: ``antflow demo``."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sqlite3
import sys

# On Python 3.10, asyncio may turn Ctrl-C into a bare CancelledError.
from asyncio import CancelledError
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from . import demo


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="antflow", description="Async pipelines.")
    parser.add_argument("--version", action="version", version=f"antflow {version('antflow')}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo_parser = commands.add_parser(
        "demo",
        help="index Python's standard library: an example with real input",
        description="Index Python's standard library into a SQLite file, in three stages.",
    )
    demo_parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    demo_parser.add_argument(
        "--db",
        type=Path,
        metavar="FILE",
        help="write the index to FILE, replacing an earlier index; default: a new temporary file",
    )
    demo_parser.add_argument(
        "--limit", type=_positive, metavar="N", help="process only the first N files"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Returns:
        The exit status: 0 for success, 1 if the output was closed, 2 for invalid arguments and file
        system errors, 130 if a signal stopped the run.
    """
    args = _parser().parse_args(argv)
    if args.backend == "trio" and find_spec("trio") is None:
        print(
            "antflow: --backend trio needs trio, which is not installed. "
            f"Run: {sys.executable} -m pip install trio",
            file=sys.stderr,
        )
        return 2
    if args.db is not None and not _can_be_replaced(args.db):
        return 2
    # antflow logs a warning for each retry. Without a handler, Python would print the warnings into
    # the progress line. The report counts the retries.
    logging.getLogger("antflow").addHandler(logging.NullHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Error messages and file names may contain characters that the terminal cannot encode.
        sys.stdout.reconfigure(errors="replace")
    try:
        complete = demo.main(args.backend, args.db, args.limit, sys.stdout)
    except (KeyboardInterrupt, CancelledError):
        complete = False
    except BrokenPipeError:
        # The reader closed the pipe. Without this, the final flush would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"antflow: {error}", file=sys.stderr)
        return 2
    if not complete:
        print("\nantflow: interrupted; the index contains the files loaded so far", file=sys.stderr)
        return 130
    return 0


def _can_be_replaced(path: Path) -> bool:
    """Return whether the demo may write to *path*; if not, print the reason."""
    if path.is_file():
        reason = None if _is_ours(path) else "exists and is not an index of this demo"
    elif path.exists():
        reason = "exists and is not a file"
    elif not path.parent.is_dir():
        reason = f"cannot be created: there is no directory {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        reason = f"cannot be created: the directory {path.parent} is not writable"
    else:
        reason = None
    if reason is not None:
        print(f"antflow: --db {path} {reason}", file=sys.stderr)
    return reason is None


def _is_ours(path: Path) -> bool:
    """Return whether *path* is empty, or an index written by this demo."""
    if path.stat().st_size == 0:
        return True
    try:
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("select name from sqlite_master where type = 'table'")
            return {name for (name,) in tables} == {"modules", "functions"}
    except sqlite3.DatabaseError:
        return False
