"""The command line: ``antflow demo``."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sqlite3
import sys

# On Python 3.10, this is what Ctrl-C becomes on its way through asyncio.
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
        help="index Python's own standard library, as an example on real input",
        description="Index Python's own standard library into a SQLite file, in three stages.",
    )
    demo_parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    demo_parser.add_argument(
        "--db",
        type=Path,
        metavar="FILE",
        help="where the index goes, replaced if it is there; default: a new temporary file",
    )
    demo_parser.add_argument(
        "--limit", type=_positive, metavar="N", help="take only the first N files"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 2 for wrong use, 130 for Ctrl-C."""
    args = _parser().parse_args(argv)
    if args.backend == "trio" and find_spec("trio") is None:
        print(
            "antflow: --backend trio needs trio, which is not installed here. "
            "Get it with: pip install trio",
            file=sys.stderr,
        )
        return 2
    if args.db is not None and not _can_be_replaced(args.db):
        return 2
    # stamina warns of each retry, and with no logging set up the bare words would land amid the
    # progress. The report counts the retries.
    logging.getLogger("stamina").addHandler(logging.NullHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Source code and file names have characters that not every terminal can show.
        sys.stdout.reconfigure(errors="replace")
    try:
        complete = demo.main(args.backend, args.db, args.limit, sys.stdout)
    except (KeyboardInterrupt, CancelledError):
        complete = False
    except BrokenPipeError:
        # Whoever read the output has enough. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"antflow: {error}", file=sys.stderr)
        return 2
    if not complete:
        print("\nantflow: interrupted; what was loaded so far is in the index", file=sys.stderr)
        return 130
    return 0


def _can_be_replaced(path: Path) -> bool:
    """Say whether the demo may write to *path*; if not, tell why."""
    if path.is_file():
        reason = None if _is_ours(path) else "is there and no index of this demo; it is left alone"
    elif path.exists():
        reason = "is there and is no file"
    elif not path.parent.is_dir():
        reason = f"cannot be made: there is no directory {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        reason = f"cannot be made: the directory {path.parent} cannot be written to"
    else:
        reason = None
    if reason is not None:
        print(f"antflow: --db {path} {reason}", file=sys.stderr)
    return reason is None


def _is_ours(path: Path) -> bool:
    """Say whether *path* is empty, or an index that this demo made."""
    if path.stat().st_size == 0:
        return True
    try:
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("select name from sqlite_master where type = 'table'")
            return {name for (name,) in tables} == {"modules", "functions"}
    except sqlite3.DatabaseError:
        return False
