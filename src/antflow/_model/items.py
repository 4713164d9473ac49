"""What goes into a run: items with ids and metadata of their own."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from attrs import field, frozen, validators

DEFAULT_PRIORITY = 100


def no_metadata() -> dict[str, Any]:
    """Return an empty dict."""
    return {}


class RunningNumber(enum.Enum):
    """Stands for the id of an `Item` that brings none: any object may be an id, None included."""

    UNSET = "the running number"


class KnownInput:
    """A class whose instances, fed to a pipeline, bring a value with its id and metadata."""

    __slots__ = ()

    # Returns what is fed.
    _as_item: Callable[[], Item]


@frozen
class Item(KnownInput):
    """
    An input with an id and metadata of its own.

    It says the same as the dict ``{"id": …, "value": …, **metadata}``, but nothing is guessed from
    the shape of the value.

    Args:
        value: What the first task is given.
        id: Any object; by default the running number of the item.
        metadata: A dict that stays with the item: results, events and callbacks have copies of it.

    Raises:
        TypeError: *metadata* is not a dict.
    """

    value: Any
    id: Any = field(default=RunningNumber.UNSET, kw_only=True)
    metadata: dict[str, Any] = field(
        factory=no_metadata, kw_only=True, validator=validators.instance_of(dict)
    )

    def _as_item(self) -> Item:
        return self
