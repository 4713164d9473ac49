"""Plain data: what ``json.dumps()`` accepts, made of results, events and snapshots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from contextlib import suppress
from typing import Any

import attrs

from .describe import describe_error, full_repr

# Containers that are nested more deeply than this become their repr: `json.dumps()` has a limit of
# its own, which depends on the stack.
_MAX_DEPTH = 100


class PlainData:
    """A class whose instances become dicts; by default one of attrs."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """
        Return a new dict of the attributes, ready for ``json.dumps()``.

        Strings, finite numbers, True, False and None stay as they are. Mappings become dicts whose
        keys are strings; lists, tuples and sets become lists; an exception becomes a dict of
        ``type`` and ``text``; results, failures, events and snapshots become dicts like this one.
        Any other value becomes its repr. So do infinity and NaN, which JSON does not have, and a
        container inside itself.
        """
        return self._to_dict((id(self),))

    def _to_dict(self, enclosing: tuple[int, ...]) -> dict[str, Any]:
        kind: Any = type(self)
        names = [field.name for field in attrs.fields(kind)]
        return {name: as_plain_data(getattr(self, name), enclosing) for name in names}


def as_plain_data(value: Any, enclosing: tuple[int, ...]) -> Any:
    """
    Return *value* as `PlainData.to_dict` describes it; never raise.

    Args:
        value: Any object.
        enclosing: The identities of the containers around *value*.
    """
    if value is None or value is True or value is False:
        return value
    # isinstance() would ask the value for its __class__, and some raise when they are asked.
    kind = type(value)
    # Classes of the user may fail to do what their base classes promise.
    with suppress(Exception):
        # Called on the base class, these return no instance of a subclass.
        if issubclass(kind, str):
            return str.__str__(value)
        if issubclass(kind, int):
            return int.__int__(value)
        if issubclass(kind, float):
            return float.__float__(value) if math.isfinite(value) else full_repr(value)
        if issubclass(kind, BaseException):
            return {"type": kind.__name__, "text": describe_error(value)}
        if id(value) not in enclosing and len(enclosing) < _MAX_DEPTH:
            enclosing = (*enclosing, id(value))
            if issubclass(kind, PlainData):
                return value._to_dict(enclosing)
            if issubclass(kind, Mapping):
                return {_as_key(key): as_plain_data(value[key], enclosing) for key in value}
            if issubclass(kind, (list, tuple, Set)):
                return [as_plain_data(item, enclosing) for item in value]
    return full_repr(value)


def _as_key(key: Any) -> str:
    return str.__str__(key) if issubclass(type(key), str) else full_repr(key)
