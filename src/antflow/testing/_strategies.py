"""Hypothesis strategies for sources, stages and pipelines."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Iterator
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

# Seconds. With so few values, several delays often end at the same time.
_DELAYS = [0.0, 0.5, 1.0, 7.0]


@frozen
class GeneratorSource:
    """
    A source whose iterator is a generator. It can be iterated over more than once.

    Attributes:
        items: The items that it yields.
    """

    items: list[Any]

    def __iter__(self) -> Iterator[Any]:
        yield from self.items


@frozen
class AsyncSource:
    """
    A source whose iterator is an async generator. It can be iterated over more than once.

    Attributes:
        items: The items that it yields.
        delay: Seconds that it sleeps before each item. Default 0.
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
    A task with drawn behaviour: each attempt sleeps, some attempts fail, then *task* is called.

    The behaviour depends only on the value. An int *n* selects the entry ``n % len(list)`` of each
    list; any other value selects an entry by a checksum of its repr.

    Attributes:
        delays: Seconds that each attempt takes.
        failures: The number of attempts that fail before one succeeds.
        task: Called by the attempt that succeeds. By default the value is returned.
    """

    delays: list[float]
    failures: list[int]
    task: Task | None = None
    _call: Task = field(init=False, repr=False, eq=False)
    __name__: str = field(default="drawn", init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        failing_first = flaky(self.task, times=self.failures_of)
        object.__setattr__(self, "_call", slow(self.delay_of, failing_first))

    async def __call__(self, value: Any) -> Any:
        """Make one attempt with *value*."""
        return await self._call(value)

    def delay_of(self, value: Any) -> float:
        """Return how many seconds an attempt with *value* takes."""
        return self.delays[_index_of(value) % len(self.delays)]

    def failures_of(self, value: Any) -> int:
        """Return how many attempts with *value* fail before one succeeds."""
        return self.failures[_index_of(value) % len(self.failures)]


def _index_of(value: Any) -> int:
    # Not hash(): the hash of a string differs from process to process.
    return value if isinstance(value, int) else zlib.crc32(repr(value).encode())


def _import_strategies() -> Any:
    try:
        from hypothesis import strategies
    except ImportError as error:
        raise ImportError(
            "the strategies of antflow.testing need hypothesis, which is not installed. "
            "In a clone of antflow, run: pip install -e '.[testing]'"
        ) from error
    return strategies


def sources(*, min_size: int = 0, max_size: int = 20) -> SearchStrategy[Any]:
    """
    Return a strategy for sources, that is for arguments of `Pipeline.run()`.

    It draws lists, `GeneratorSource` and `AsyncSource`, all of which can be run more than once. The
    items of a source are all bare values, all dicts with an id, or all `Item`. The values are 0, 1,
    2, …, and all ids differ. The simplest source is a short list of bare values.

    Args:
        min_size: The smallest number of items. Default 0.
        max_size: The largest number of items. Default 20.

    Raises:
        StageValidationError: An argument is not valid.
        ImportError: hypothesis is not installed.
    """
    owner = "sources()"
    check_int(owner, "min_size", min_size, at_least=0)
    check_int(owner, "max_size", max_size, at_least=min_size)
    st = _import_strategies()
    make_item = st.sampled_from([_bare, _as_dict, _as_item])
    items = st.builds(_make_items, make_item, st.integers(min_size, max_size))
    return st.one_of(  # type: ignore[no-any-return]
        items,
        st.builds(GeneratorSource, items),
        st.builds(AsyncSource, items, st.sampled_from(_DELAYS)),
    )


def _make_items(make_item: Callable[[int], Any], count: int) -> list[Any]:
    return [make_item(number) for number in range(count)]


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

    Each stage has one `DrawnTask`, whose attempts take up to 7 seconds and may fail, and a
    `RetryPolicy` of either scope with up to 3 attempts. Run them in virtual time. The simplest
    stage has one worker, ``queue_capacity=0``, one attempt, and a task that returns its value at
    once.

    Args:
        name: The name of the stage. Default "S0".
        task: Called by each attempt that does not fail. By default the value is returned.
        max_workers: The largest number of workers. Default 4.
        max_capacity: The largest ``queue_capacity``. Default 3.
        max_failures: The largest number of attempts that fail for one item; with 0 none fails.
            Default 3.

    Raises:
        StageValidationError: An argument is not valid.
        ImportError: hypothesis is not installed.
    """
    owner = "stages()"
    check_callback(owner, "task", task, "value")
    check_int(owner, "max_workers", max_workers, at_least=1)
    check_int(owner, "max_capacity", max_capacity, at_least=0)
    check_int(owner, "max_failures", max_failures, at_least=0)
    st = _import_strategies()
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
    Return a strategy for pipelines of `stages()`, named S0, S1, …

    Args:
        max_stages: The largest number of stages. Default 3.
        limits: Keyword arguments of `stages()`.

    Raises:
        StageValidationError: An argument is not valid.
        ImportError: hypothesis is not installed.
    """
    check_int("pipelines()", "max_stages", max_stages, at_least=1)
    st = _import_strategies()
    return st.builds(  # type: ignore[no-any-return]
        _make_pipeline, st.lists(stages(**limits), min_size=1, max_size=max_stages)
    )


def _make_pipeline(drawn: list[Stage]) -> Pipeline:
    return Pipeline([evolve(stage, name=f"S{number}") for number, stage in enumerate(drawn)])
