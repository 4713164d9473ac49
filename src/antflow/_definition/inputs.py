"""Checks of the items and the target stage that a run is fed with."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Iterable

from .._model.describe import short_repr
from .._model.errors import PipelineError
from .._model.items import KnownInput
from .stage import Stage
from .validation import reject_argument


def check_items(owner: str, items: object) -> None:
    """Reject *items* unless they can be iterated over and do not look like a single item."""
    is_one_item = isinstance(items, (str, bytes, KnownInput)) or (
        isinstance(items, dict) and "id" in items
    )
    if isinstance(items, (Iterable, AsyncIterable)) and not is_one_item:
        return
    shown = f"{short_repr(items)} ({type(items).__name__})"
    hint = ""
    if is_one_item:
        hint = " It looks like a single item: put it in a list."
    elif callable(items):
        hint = " It is a function: call it, and pass what it returns."
    elif inspect.isawaitable(items):
        hint = " It is an awaitable: await it first, and pass what it returns."
        if inspect.iscoroutine(items):
            items.close()
    raise PipelineError(f"{owner}: items must be an iterable or async iterable, got {shown}.{hint}")


def check_target(owner: str, stages: tuple[Stage, ...], target_stage: object) -> int:
    """Return the index of the stage with the name *target_stage*; None means the first."""
    names = [stage.name for stage in stages]
    if target_stage is None:
        return 0
    if target_stage not in names:
        hint = "Pass its name." if isinstance(target_stage, Stage) else None
        reject_argument(
            owner, "target_stage", f"one of {', '.join(map(repr, names))}", target_stage, hint
        )
    return names.index(str(target_stage))
