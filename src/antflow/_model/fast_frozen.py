"""How frozen records are made in little time and memory, of which there are several per item."""

from __future__ import annotations

from threading import RLock
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound="type[Any]")
# Held while a dict is made: two threads that look at once are given the same. A handler of signals,
# or a finalizer, may look in the midst of that, too.
_metadata_lock = RLock()


class LazyDict:
    """
    An attribute that is a dict, made at the moment at which somebody looks at it.

    Args:
        slot: Where it is kept; None there stands for an empty dict.
    """

    def __init__(self, slot: Any) -> None:
        self.slot = slot

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        kept = self.slot.__get__(instance)
        if kept is None:
            with _metadata_lock:
                # Another thread may have been faster.
                kept = self.slot.__get__(instance)
                kept = {} if kept is None else kept
                self.slot.__set__(instance, kept)
        return kept

    def __set__(self, instance: object, value: Any) -> None:
        self.slot.__set__(instance, value)


def with_lazy_metadata(cls: _Class) -> _Class:
    """
    Make ``metadata`` of *cls*, a class with slots, an `OwnDict`.

    Most items bring no metadata, and hardly anybody looks at that of an event. An empty dict in
    each of them would be a seventh of what a tracker costs.
    """
    cls.metadata = LazyDict(cls.metadata)
    return cls


def mutable_twin(cls: type[Any]) -> Any:
    """
    Return a subclass of *cls*, frozen and `with_own_metadata`, whose instances can be set.

    The fields of a frozen instance must be set past its class, which takes three times as long as
    setting them. So an instance of the subclass is made, without arguments, all its fields are set,
    and then its class is changed to *cls*.
    """
    namespace = {
        "__slots__": (),
        "__init__": object.__init__,
        "__setattr__": object.__setattr__,
        "__delattr__": object.__delattr__,
        "metadata": cls.__dict__["metadata"].slot,
    }
    return type(cls.__name__, (cls,), namespace)
