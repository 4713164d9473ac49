"""The output of the demo: a progress line while it runs, and a report at the end."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TextIO

import anyio

from .._api.pipeline import Pipeline
from .._model.events import StatusEvent
from .._model.results import Results


def count_functions(path: Path) -> tuple[int, int]:
    """Count the functions in the database at *path*, and the public ones without docstring."""
    with closing(sqlite3.connect(path)) as connection:
        (functions,) = connection.execute("select count(*) from functions").fetchone()
        (undocumented,) = connection.execute(
            "select count(*) from functions where public and not docstring"
        ).fetchone()
    return functions, undocumented


class Progress:
    """Shows the progress: on a terminal in one line that is redrawn, elsewhere line by line."""

    def __init__(self, pipeline: Pipeline, total: int, out: TextIO) -> None:
        self._pipeline = pipeline
        self._total = total
        self._out = out
        self._is_terminal = out.isatty()

    async def show(self) -> None:
        """Write the progress at regular intervals until cancelled."""
        while True:
            await anyio.sleep(0.1 if self._is_terminal else 2.0)
            self.write()

    def write(self) -> None:
        """Write the progress once."""
        stats = self._pipeline.get_stats()
        done = stats.items_processed + stats.items_failed
        queues = "  ".join(f"{name} {size}" for name, size in stats.queue_sizes.items())
        line = f"{done:5} of {self._total} files  {stats.items_failed} failed  waiting: {queues}"
        if self._is_terminal:
            filled = 24 * done // max(1, self._total)
            line = f"[{'█' * filled}{'·' * (24 - filled)}] {line}"
            # A line that wraps could not be redrawn.
            line = f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        self._out.write(line if self._is_terminal else f"{line}\n")
        self._out.flush()

    def finish(self) -> None:
        """Write the final state, and end the line."""
        self.write()
        if self._is_terminal:
            self._out.write("\n")


def busiest_stage(pipeline: Pipeline) -> tuple[str, float]:
    """Return the stage whose workers were busy longest, and their busy seconds in total."""
    seconds: dict[str, float] = {}
    for metrics in pipeline.get_worker_metrics().values():
        seconds[metrics.stage] = seconds.get(metrics.stage, 0.0) + metrics.total_processing_time
    return max(seconds.items(), key=lambda item: item[1])


class RetryCounter:
    """Counts the per-stage retries of a run."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.count = 0
        pipeline.events.subscribe(StatusEvent, self._count)

    def _count(self, event: StatusEvent) -> None:
        self.count += event.status == "retrying"


def report(
    pipeline: Pipeline,
    results: Results,
    retries: int,
    library: Path,
    database: Path,
    seconds: float,
) -> str:
    """Return the report: the failures, the totals, and a query to try."""
    files = len(results) + len(results.failures)
    functions, undocumented = count_functions(database)
    stage, busy = busiest_stage(pipeline)
    lines = ["Files that failed:"] if results.failures else []
    for failure in sorted(results.failures, key=lambda failure: str(failure.item_id)):
        reason = " ".join(failure.error.replace(f"{library}{os.sep}", "").split())
        reason = reason if len(reason) <= 120 else f"{reason[:119]}…"
        lines.append(f"  {failure.item_id}  {failure.stage}: {failure.error_type}: {reason}")
    if results.failures:
        lines.append("")
    by_type = pipeline.get_error_summary().errors_by_type
    failed = ", ".join(f"{name} {count}" for name, count in by_type.items())
    rows = [
        ("files", f"{files:,}"),
        ("failed", f"{len(results.failures):,}" + (f"  ({failed})" if failed else "")),
        ("retries in Load", f"{retries:,}"),
        ("functions", f"{functions:,}"),
        ("public without docstring", f"{undocumented:,}"),
        ("busiest stage", f"{stage}  ({busy:.1f} s over its workers, waits for locks included)"),
        ("speed", f"{files / seconds:,.0f} files/s  ({seconds:.1f} s)"),
    ]
    lines += [f"{name:>26}  {value}" for name, value in rows]
    # Double quotes, because the shell command uses single quotes.
    file, question = (
        json.dumps(text)
        for text in (
            str(database),
            "select lines, path from modules order by lines desc limit 5",
        )
    )
    script = f'import sqlite3; print(*sqlite3.connect({file}).execute({question}), sep="\\n")'
    lines += [
        "",
        f"The index is in {database}. To list the longest modules:",
        f"  {shlex.join([sys.executable, '-c', script])}",
    ]
    return "\n".join(lines)
