"""What stands for a value where it is looked up again."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any


def key_of(value: Any) -> Hashable:
    """
    Return what is equal for equal values of one type, for unhashable ones too.

    What cannot be hashed is told by its repr, so that a dict which is built anew for each attempt
    counts as the same; what has no repr either, by its identity.
    """
    try:
        hash(value)
    except Exception:
        try:
            return type(value), repr(value)
        except Exception:
            return type(value), id(value)
    # 1, 1.0 and True are equal and not the same.
    return type(value), value
