"""Every Python block of the guide runs on both backends and prints the output that it shows."""

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
from tqdm import tqdm

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted((DOCS / "guide").glob("*.md"))


def code_blocks(page: Path) -> list[tuple[int, str]]:
    """Return the code blocks of a page, each with the number of its first line."""
    sybil = Sybil(parsers=[CodeBlockParser("python", evaluator=lambda example: None)])
    return [(example.line, str(example.parsed)) for example in sybil.parse(page).examples()]


def expected_output(block: str) -> list[str]:
    return re.findall(r"# → (.*)", block)


def test_the_index_lists_every_page_of_the_guide() -> None:
    listed = re.findall(r"^guide/([a-z-]+)$", (DOCS / "index.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == [page.stem for page in PAGES]
    assert len(PAGES) == 11


@pytest.mark.virtual_time
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
async def test_each_block_of_the_guide_works(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise tqdm leaves a thread running, which slows down virtual time in later tests.
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    names: dict[str, Any] = {"__name__": f"guide.{page.stem}"}
    blocks = code_blocks(page)
    assert blocks
    logging.getLogger("antflow").setLevel(logging.CRITICAL)
    try:
        for line, block in blocks:
            # The blank lines make a traceback show the line of the page.
            source = "\n" * line + block
            code = compile(source, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                outcome = eval(code, names)
                if inspect.isawaitable(outcome):
                    await outcome
            where = f"{page.name}, line {line}"
            assert printed.getvalue().splitlines() == expected_output(block), where
    finally:
        logging.getLogger("antflow").setLevel(logging.NOTSET)


def test_the_tests_on_the_testing_page_pass(tmp_path: Path) -> None:
    """Together, the blocks of the page are a test file that a user could write."""
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
