"""Checks of concurrency limits: how many attempts of a task may run at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .callables import task_name
from .validation import check_int, reject_argument


def check_limits(owner: str, limits: Any) -> None:
    """Reject *limits* unless it maps task names to whole numbers of at least 1."""
    if not isinstance(limits, Mapping):
        reject_argument(owner, "task_concurrency_limits", "a dict of task names and limits", limits)
    for key, limit in limits.items():
        if not isinstance(key, str):
            hint = f"Write {task_name(key)!r}." if callable(key) else None
            reject_argument(
                owner, "each key of task_concurrency_limits", "the name of a task", key, hint
            )
        check_int(owner, f"task_concurrency_limits[{key!r}]", limit, at_least=1)
