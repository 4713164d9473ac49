"""Each example runs to its end on both backends, without warnings, and prints what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

OUTPUT = {
    "etl.py": [
        r"Loaded 99 items, the first is \{'id': 0, .*'source': 'example'\}",
        r"Failed: item 66 failed in stage 'Transform', task 'validate', after 2 attempts",
        r"Extract +100 completed, 0 failed",
    ],
    "worker_tracking.py": [r"Download-W0 +\d+ +\d+% +\d+  file-", r"The busiest worker had \d+"],
    "crawler.py": [
        r"/news/2 +linked from /news, /news/1\n",
        r"/lost +no such page: see \['/news/1'\]",
        r"\n8 pages\n",
    ],
    "task_events.py": [
        r"retry fetch of item 1, attempt 1: try again",
        r"FAILED save_to_database of item 7, attempt 3",
        r"fetch +\d+\.\d ms in all",
    ],
    "rich_callback_dashboard.py": [r"antflow, watched by callbacks", r"Fetch +│ +0 │ +0 │ +\d+ │"],
    "rich_polling_dashboard.py": [r"\d+ done, \d+ failed, 0 in flight", r"Save-W1 +│ idle"],
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(OUTPUT)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", OUTPUT)
def test_an_example_runs(name: str, backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), "--backend", backend],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for pattern in OUTPUT[name]:
        assert re.search(pattern, done.stdout), done.stdout
