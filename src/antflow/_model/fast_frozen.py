"""Frozen classes with cheap instances, because several are made for each item."""

from __future__ import annotations

from threading import RLock
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound="type[Any]")
# Held while a dict is made, so that two threads that read one attribute get the same dict. It is
# reentrant because a signal handler or a finalizer may interrupt and read the attribute as well.
_metadata_lock = RLock()


class LazyDict:
    """
    A descriptor for an attribute whose value is a dict that is made when it is first read.

    Args:
        slot: The descriptor of the slot that holds the dict; None stands for an empty dict.
    """

    def __init__(self, slot: Any) -> None:
        self.slot = slot

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = self.slot.__get__(instance)
        if value is None:
            with _metadata_lock:
                # Another thread may have made it meanwhile.
                value = self.slot.__get__(instance)
                value = {} if value is None else value
                self.slot.__set__(instance, value)
        return value

    def __set__(self, instance: object, value: Any) -> None:
        self.slot.__set__(instance, value)


def with_lazy_metadata(cls: _Class) -> _Class:
    """
    Make ``metadata`` of *cls*, a class with slots, a `LazyDict`.

    Most items have no metadata, and the metadata of an event is rarely read. Making an empty dict
    for each event would be a seventh of what a tracker costs.
    """
    cls.metadata = LazyDict(cls.metadata)
    return cls


def mutable_twin(cls: type[Any]) -> Any:
    """
    Return a subclass, with mutable instances, of *cls*, which is frozen and `with_lazy_metadata`.

    Setting the fields of a frozen instance takes three times as long, because it must bypass the
    ``__setattr__`` of the class. So an instance of the subclass is made without arguments, all its
    fields are set, and then its class is changed to *cls*.
    """
    namespace = {
        "__slots__": (),
        "__init__": object.__init__,
        "__setattr__": object.__setattr__,
        "__delattr__": object.__delattr__,
        "metadata": cls.__dict__["metadata"].slot,
    }
    return type(cls.__name__, (cls,), namespace)
