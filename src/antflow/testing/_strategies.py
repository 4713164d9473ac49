"""Strategies for hypothesis: sources, stages and pipelines that do all that may happen."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import anyio
from attrs import evolve, field, frozen

from .._api.pipeline import Pipeline
from .._definition.retry_policy import RetryPolicy
from .._definition.stage import Stage, Task
from .._definition.validation import check_callback, check_int
from .._model.items import Item
from ._tasks import flaky, slow

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

# Seconds: several that are equal, so that things happen at the same time.
_DELAYS = [0.0, 0.5, 1.0, 7.0]


@frozen
class GeneratorSource:
    """A source whose iterator is a generator; it can be run more than once."""

    items: list[Any]

    def __iter__(self) -> Iterator[Any]:
        yield from self.items


@frozen
class AsyncSource:
    """
    A source whose iterator is an async generator; it can be run more than once.

    Attributes:
        items: What it gives.
        delay: Seconds before each.
    """

    items: list[Any]
    delay: float = 0.0

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self.items:
            if self.delay:
                await anyio.sleep(self.delay)
            yield item


@frozen
class DrawnTask:
    """
    A task that waits, fails now and then, and passes its value on, as it was drawn.

    What it does depends on the value alone: for a whole number *n*, what stands at place *n* in
    the two lists, which are repeated as needed.

    Attributes:
        delays: How many seconds each attempt takes.
        failures: How many attempts fail before one succeeds.
        task: What is done then; by default the value is passed on.
    """

    delays: list[float]
    failures: list[int]
    task: Task | None = None
    _call: Task = field(init=False, repr=False, eq=False)
    __name__: str = field(default="drawn", init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        flawed = flaky(self.task, times=self.failures_of)
        object.__setattr__(self, "_call", slow(self.delay_of, flawed))

    async def __call__(self, value: Any) -> Any:
        """Do it."""
        return await self._call(value)

    def delay_of(self, value: Any) -> float:
        """Return how many seconds an attempt with *value* takes."""
        return self.delays[_place_of(value) % len(self.delays)]

    def failures_of(self, value: Any) -> int:
        """Return how many attempts with *value* fail before one succeeds."""
        return self.failures[_place_of(value) % len(self.failures)]


def _place_of(value: Any) -> int:
    # Not hash(): that of texts differs from process to process.
    return value if isinstance(value, int) else zlib.crc32(repr(value).encode())


def _hypothesis() -> Any:
    try:
        from hypothesis import strategies
    except ImportError as error:
        raise ImportError(
            "the strategies of antflow.testing draw with hypothesis, which is not installed: "
            'pip install "antflow[testing]"'
        ) from error
    return strategies


def sources(*, min_size: int = 0, max_size: int = 20) -> SearchStrategy[Any]:
    """
    Return a strategy for what a pipeline can be run with.

    It draws lists, generators and async generators (as objects that can be run more than once, and
    show what they give) of bare values, dicts with ids, and `Item`. The values are 0, 1, 2, …; all
    ids differ. The simplest is a short list of bare values.

    Args:
        min_size: How many items there are at least.
        max_size: How many items there are at most.

    Raises:
        StageValidationError: An argument is not valid.
        ImportError: hypothesis is not installed.
    """
    owner = "sources()"
    check_int(owner, "min_size", min_size, at_least=0)
    check_int(owner, "max_size", max_size, at_least=min_size)
    st = _hypothesis()
    wrap = st.sampled_from([_bare, _as_dict, _as_item])
    items = st.builds(_wrapped, wrap, st.integers(min_size, max_size))
    return st.one_of(  # type: ignore[no-any-return]
        items,
        st.builds(GeneratorSource, items),
        st.builds(AsyncSource, items, st.sampled_from(_DELAYS)),
    )


def _wrapped(wrap: Any, count: int) -> list[Any]:
    return [wrap(number) for number in range(count)]


def _bare(number: int) -> Any:
    return number


def _as_dict(number: int) -> Any:
    return {"id": f"item {number}", "value": number, "origin": "drawn"}


def _as_item(number: int) -> Any:
    return Item(number, id=("item", number), metadata={"origin": "drawn"})


def stages(
    name: str = "S0",
    *,
    task: Task | None = None,
    max_workers: int = 4,
    max_capacity: int = 3,
    max_failures: int = 3,
) -> SearchStrategy[Stage]:
    """
    Return a strategy for stages.

    Each has one `DrawnTask`, which takes up to 7 seconds and fails some attempts, and a
    `RetryPolicy` of either scope with up to 3 attempts: so run them in virtual time. The simplest
    has one worker, no room in its queue, no retries, and a task that does nothing.

    Args:
        name: Of the stage.
        task: What the task does when it does not fail; by default it passes its value on.
        max_workers: How many workers there are at most.
        max_capacity: How large the ``queue_capacity`` is at most.
        max_failures: How many attempts fail at most for an item; with 0, none.

    Raises:
        StageValidationError: An argument is not valid.
        ImportError: hypothesis is not installed.
    """
    owner = "stages()"
    check_callback(owner, "task", task, "value")
    check_int(owner, "max_workers", max_workers, at_least=1)
    check_int(owner, "max_capacity", max_capacity, at_least=0)
    check_int(owner, "max_failures", max_failures, at_least=0)
    st = _hypothesis()
    drawn = st.builds(
        DrawnTask,
        st.lists(st.sampled_from(_DELAYS), min_size=1, max_size=6),
        st.lists(st.integers(0, max_failures), min_size=1, max_size=6),
        st.just(task),
    )
    policy = st.builds(
        RetryPolicy,
        scope=st.sampled_from(["task", "stage"]),
        attempts=st.integers(1, 3),
        wait_initial=st.sampled_from(_DELAYS),
        wait_jitter=st.just(0.0),
    )
    return st.builds(  # type: ignore[no-any-return]
        Stage,
        name=st.just(name),
        workers=st.integers(1, max_workers),
        tasks=st.tuples(drawn),
        retry=policy,
        queue_capacity=st.integers(0, max_capacity),
    )


def pipelines(*, max_stages: int = 3, **limits: Any) -> SearchStrategy[Pipeline]:
    """
    Return a strategy for pipelines of `stages()`, which are named S0, S1, …

    Args:
        max_stages: How many stages there are at most.
        limits: As for `stages()`.

    Raises:
        StageValidationError: An argument is not valid.
        ImportError: hypothesis is not installed.
    """
    check_int("pipelines()", "max_stages", max_stages, at_least=1)
    st = _hypothesis()
    return st.builds(  # type: ignore[no-any-return]
        _numbered, st.lists(stages(**limits), min_size=1, max_size=max_stages)
    )


def _numbered(drawn: list[Stage]) -> Pipeline:
    return Pipeline([evolve(stage, name=f"S{number}") for number, stage in enumerate(drawn)])
