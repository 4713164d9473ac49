"""What a run returns: a list of results, which are made when somebody looks at one of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import wraps
from threading import RLock
from typing import Any

from ._items import FailedItem, Kept, PipelineResult

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


class Results(list[PipelineResult]):
    """
    The successful results of a run in input order: a list with the failures beside it.

    Attributes:
        failures: A `FailedItem` for each input that failed, in the order in which they failed.
    """

    failures: list[FailedItem]

    def __init__(
        self, results: Iterable[PipelineResult] = (), failures: Iterable[FailedItem] = ()
    ) -> None:
        super().__init__(results)
        self.failures = list(failures)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"<Results: {len(self)} succeeded{failed}: {super().__repr__()}>"

    @property
    def values(self) -> list[Any]:
        """The bare values, in input order."""
        return [result.value for result in self]

    def raise_for_failures(self) -> None:
        """
        Raise if any item failed.

        Raises:
            ExceptionGroup: One `TaskFailedError` for each failure, each caused by the task's own
                exception.
        """
        if self.failures:
            count = len(self.failures)
            raise ExceptionGroup(
                f"{count} item{'' if count == 1 else 's'} failed",
                [failure.as_exception() for failure in self.failures],
            )


class _Unmade:
    """Stands in the memory of a list for a result that nobody has looked at."""

    def __repr__(self) -> str:
        return "<a result that is made when one looks at it: give list(results) to what reads this>"


_UNMADE: Any = _Unmade()
# Held while results are made: two threads that look at once are given the same.
_making = RLock()


class UnmadeResults(Results):
    """
    The results of a run that is over, made when somebody looks at one of them.

    To make one takes a third of the time that an item takes in a stage that does nothing, and five
    times the memory of what is kept without. Whoever asks only for `values`, `failures` and how
    many there are need not pay for that.

    Each method of a list that could tell of its contents makes them first, and turns this into
    ordinary `Results`. Invariant: until then the list has its final length, and in it are nothing
    but stand-ins, for what is written in C and reads the memory of a list past its methods.

    Args:
        kept: What came out: bare values, and `Kept`.
        make: Returns the results, as many.
        failures: A `FailedItem` for each input that failed.
    """

    def __init__(
        self,
        kept: list[Any],
        make: Callable[[], Iterable[PipelineResult]],
        failures: Iterable[FailedItem],
    ) -> None:
        super().__init__([_UNMADE] * len(kept), failures)
        self._kept = kept
        self._make = make

    @property
    def values(self) -> list[Any]:
        """The bare values, in input order."""
        with _making:
            if type(self) is UnmadeResults:
                return [each.value if type(each) is Kept else each for each in self._kept]
        # Another thread has made them.
        return [result.value for result in self]

    def __radd__(self, other: Any) -> Any:
        # A list that this is added to would read its memory.
        _make(self)
        return other + self


def _make(results: Results) -> None:
    """Let *results* be made; no method, as another thread may change their class meanwhile."""
    with _making:
        made = list(results._make()) if type(results) is UnmadeResults else []
        # Asked again: a finalizer may have looked meanwhile, in this very thread.
        if type(results) is UnmadeResults:
            list.__setitem__(results, slice(None), made)
            del results._kept, results._make
            results.__class__ = Results  # type: ignore[assignment]


def _making_first(name: str) -> Any:
    method = getattr(Results, name)

    @wraps(method)
    def make_and_do(self: UnmadeResults, /, *args: Any, **options: Any) -> Any:
        _make(self)
        return method(self, *args, **options)

    return make_and_do


# Of what a list has, this tells nothing of its contents.
_TELLS_NOTHING = {
    "__class_getitem__",
    "__doc__",
    "__getattribute__",
    "__hash__",
    "__init__",
    "__len__",
    "__new__",
    "__sizeof__",
}
for _name in {*vars(list), "__reduce_ex__"} - _TELLS_NOTHING:
    setattr(UnmadeResults, _name, _making_first(_name))
