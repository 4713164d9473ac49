"""One property of whole pipelines, as users could write it: a run keeps all promises."""

from __future__ import annotations

import math
from collections.abc import Sequence

from anyio import move_on_after
from anyio.lowlevel import checkpoint
from attrs import evolve, frozen
from hypothesis import strategies as st

from antflow import Item, Pipeline, PipelineResult
from antflow.testing import (
    Decision,
    EventLog,
    Exploration,
    assert_promises,
    cancel,
    stages,
)


async def add_100(value: int) -> int:
    return value + 100


async def is_odd(value: int) -> bool:
    await checkpoint()
    return value % 2 == 1


def outcome(pipeline: Pipeline, value: int) -> tuple[bool, int]:
    """Return whether *value* passes *pipeline*, and its value at the end or where it fails."""
    for stage in pipeline.stages:
        if stage.skip_if is None or value % 2 == 0:
            if stage.tasks[0].failures_of(value) >= stage.retry_policy.attempts:  # type: ignore[attr-defined]
                return False, value
            value += 100
    return True, value


@frozen
class Feeding:
    """``feed()`` in a block, item by item, with a time-out of *patience* seconds for each item."""

    patience: float

    async def __call__(self, log: EventLog, items: list[Item]) -> Sequence[PipelineResult]:
        async with log.pipeline:
            for item in items:
                with move_on_after(self.patience):
                    await log.pipeline.feed(log.source([item], priority=1), priority=1)
            await log.pipeline.join()
            return log.pipeline.results


@frozen
class Streaming:
    """
    ``stream()``, with a time-out for some results, and perhaps an early end.

    Attributes:
        ordered: As for ``stream()``.
        window: As for ``stream()``, if ordered.
        buffer_size: As for ``stream()``.
        patience: The time-outs of the first results, in seconds.
        enough: After this many results the consumer stops; with 0 it takes all of them.
        leaves: Whether it stops by leaving the block, or else by ``shutdown()``.
    """

    ordered: bool
    window: int
    buffer_size: int
    patience: list[float]
    enough: int
    leaves: bool

    async def __call__(self, log: EventLog, items: list[Item]) -> Sequence[PipelineResult] | None:
        stream = log.pipeline.stream(
            log.source(items),
            ordered=self.ordered,
            buffer_size=self.buffer_size,
            window=self.window if self.ordered else None,
        )
        patience = [*reversed(self.patience)]
        async with stream as results:
            sink = log.sink(results)
            while True:
                with move_on_after(patience.pop() if patience else math.inf):
                    try:
                        await anext(sink)
                    except StopAsyncIteration:
                        return log.taken
                    if len(log.taken) == self.enough:
                        if self.leaves:
                            return None
                        await results.shutdown()


@frozen
class Case:
    """A pipeline, its items, how it is used, and the step before which it is cancelled, if any."""

    pipeline: Pipeline
    items: list[Item]
    use: Feeding | Streaming
    cancel_at: int | None


def cases() -> st.SearchStrategy[Case]:
    # Tasks take multiples of half a second, so in the default order these end at other times.
    patience = st.sampled_from([0.7, 1.7, 3.7])
    drawn = [
        st.builds(
            evolve,
            stages(name, task=add_100, max_workers=3, max_capacity=2, max_failures=1),
            skip_if=st.sampled_from([None, is_odd]),
        )
        for name in ("A", "B", "C")
    ]
    streaming = st.builds(
        Streaming,
        ordered=st.booleans(),
        window=st.integers(1, 3),
        buffer_size=st.sampled_from([0, 64]),
        patience=st.lists(patience, max_size=4),
        enough=st.sampled_from([0, 0, 0, 2]),
        leaves=st.booleans(),
    )
    return st.builds(
        Case,
        pipeline=st.builds(Pipeline, st.tuples(*drawn[:2]) | st.tuples(*drawn)),
        items=st.integers(0, 8).map(
            lambda count: [Item(number, id=number) for number in range(count)]
        ),
        use=st.builds(Feeding, patience) | streaming,
        cancel_at=st.sampled_from([None] * 9 + [10, 30, 60]),
    )


def keeps_its_promises(backend: str, case: Case, schedule: list[Decision]) -> None:
    """Use the pipeline as *case* says, and check the promises, the results and the failures."""
    hooks = {} if case.cancel_at is None else {case.cancel_at: cancel}
    exploration = Exploration(backend, schedule, hooks=hooks, max_steps=10_000)
    with EventLog(case.pipeline) as log:
        results = exploration.run(case.use, log, case.items)
    assert_promises(log, results, complete=results is not None)
    for event in log.status_events:
        if event.status == "failed":
            assert event.failed_item is not None
            assert (False, event.failed_item.stage_value) == outcome(case.pipeline, event.item_id)
    for result in results or log.taken:
        assert (result.is_success, result.value) == outcome(case.pipeline, result.id)
