"""Hashable keys for values of any type, so that values can be counted and looked up."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any


def equality_key(value: Any) -> Hashable:
    """
    Return a hashable key that is equal for equal values of one type.

    The key of an unhashable value contains its repr, so a dict that is rebuilt for each attempt
    keeps its key. If the repr raises as well, the key contains the identity of the value.
    """
    try:
        hash(value)
    except Exception:
        try:
            return type(value), repr(value)
        except Exception:
            return type(value), id(value)
    # The type tells 1, 1.0 and True apart, which are equal.
    return type(value), value
