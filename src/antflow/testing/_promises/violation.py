"""How a broken promise is told."""

from __future__ import annotations

from typing import Any, NoReturn

from ..._model.describe import short_repr
from .event_log import EventLog


def broken(
    promise: str, log: EventLog, item_id: Any, came: str, instead: str, stage: str | None = None
) -> NoReturn:
    """Raise the error that says which *promise* was broken for which item, and how."""
    where = "" if stage is None else f", stage {stage!r}"
    story = log.story(item_id) or "  nothing"
    raise AssertionError(
        f"{promise} is broken for item {short_repr(item_id)}{where}: {came}. {instead}.\n"
        f"What happened to item {short_repr(item_id)}:\n{story}"
    )
