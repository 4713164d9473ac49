"""The error for a promise that was not kept."""

from __future__ import annotations

from typing import Any, NoReturn

from ..._model.describe import short_repr
from .event_log import EventLog


def raise_violation(
    promise: str,
    log: EventLog,
    item_id: Any,
    observed: str,
    expected: str,
    stage: str | None = None,
) -> NoReturn:
    """
    Raise the AssertionError for a *promise* that was broken for one item.

    Args:
        promise: The number and the name of the promise.
        log: The history of the item is taken from it.
        item_id: The id of the item.
        observed: What was found. A clause about the item, without a full stop.
        expected: What would have been correct, or what else may explain it. Sentences, without the
            last full stop.
        stage: The name of the stage where it was found, if it was at a stage.
    """
    where = "" if stage is None else f", stage {stage!r}"
    history = log.story(item_id) or "  no entries"
    raise AssertionError(
        f"{promise} is broken for item {short_repr(item_id)}{where}: {observed}. {expected}.\n"
        f"History of item {short_repr(item_id)}:\n{history}"
    )
