"""The command line: ``antflow demo``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
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
            "Get it with: pip install 'antflow[trio]', or in a clone: pip install -e '.[trio]'",
            file=sys.stderr,
        )
        return 2
    if args.db is not None and not _can_be_replaced(args.db):
        return 2
    # stamina warns of each retry, and with no logging set up the bare words would land amid the
    # progress. The report counts the retries.
    logging.getLogger("stamina").addHandler(logging.NullHandler())
    try:
        demo.main(args.backend, args.db, args.limit, sys.stdout)
    except KeyboardInterrupt:
        print("\nantflow: interrupted", file=sys.stderr)
        return 130
    return 0


def _can_be_replaced(path: Path) -> bool:
    """Say whether the demo may write to *path*; if not, tell why."""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(16)
        if start and start != b"SQLite format 3\0":
            reason = "is there and is no SQLite file; it is left alone"
        else:
            return True
    elif path.exists():
        reason = "is there and is no file"
    elif not path.parent.is_dir():
        reason = f"cannot be made: there is no directory {path.parent}"
    else:
        return True
    print(f"antflow: --db {path} {reason}", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
