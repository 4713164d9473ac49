"""`Item`: an input with an id and metadata of its own; and the default priority."""

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
    """The placeholder id of an `Item` without one, because any object may be an id, even None."""

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

    It is equivalent to the dict ``{"id": …, "value": …, **metadata}``, but nothing is guessed from
    the shape of the input.

    Args:
        value: The argument of the first task.
        id: Any object; by default the running number of the input.
        metadata: A dict that stays with the item. Results, events and callbacks get copies of it.

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
