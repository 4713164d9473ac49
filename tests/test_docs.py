"""Every Python block of the guide runs as it stands, on both backends, and prints what it says."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

DOCS = Path(__file__).parent.parent / "docs"
CHAPTERS = sorted((DOCS / "guide").glob("*.md"))


def code_blocks(chapter: Path) -> list[tuple[int, str]]:
    """Return the blocks of a chapter with the number of the line on which each begins."""
    sybil = Sybil(parsers=[CodeBlockParser("python", evaluator=lambda example: None)])
    return [(example.line, str(example.parsed)) for example in sybil.parse(chapter).examples()]


def promised_output(block: str) -> list[str]:
    return re.findall(r"# → (.*)", block)


def test_there_are_chapters() -> None:
    assert len(CHAPTERS) == 11


@pytest.mark.virtual_time
@pytest.mark.parametrize("chapter", CHAPTERS, ids=[chapter.stem for chapter in CHAPTERS])
async def test_each_block_of_the_guide_works(chapter: Path) -> None:
    names: dict[str, Any] = {"__name__": f"guide.{chapter.stem}"}
    blocks = code_blocks(chapter)
    assert blocks
    logging.getLogger("antflow").setLevel(logging.CRITICAL)
    try:
        for line, block in blocks:
            # Blank lines in front, so that a traceback tells the line of the chapter.
            source = "\n" * line + block
            code = compile(source, str(chapter), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                outcome = eval(code, names)
                if inspect.isawaitable(outcome):
                    await outcome
            where = f"{chapter.name}, line {line}"
            assert printed.getvalue().splitlines() == promised_output(block), where
    finally:
        logging.getLogger("antflow").setLevel(logging.NOTSET)


def test_the_tests_of_the_guide_pass(tmp_path: Path) -> None:
    """They stand in the chapter as a user would have them in a file of his own."""
    blocks = [block for _, block in code_blocks(DOCS / "guide" / "testing.md")]
    file = tmp_path / "test_mine.py"
    file.write_text("\n\n".join(blocks), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", file.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "14 passed, 2 xfailed" in ran.stdout
