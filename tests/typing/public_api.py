"""The types of the public names of `antflow`; this module is type-checked, not run."""

from __future__ import annotations

import datetime as dt
import functools
import math
from collections.abc import AsyncIterator
from typing import Any

from typing_extensions import assert_type

from antflow import (
    DashboardSnapshot,
    ErrorSummary,
    EventBus,
    FailedItem,
    Item,
    Pipeline,
    PipelineResult,
    PipelineStats,
    Results,
    RetryPolicy,
    Stage,
    StageStats,
    StatusEvent,
    StatusTracker,
    Subscription,
    TaskEvent,
    TaskFailedError,
    TooManyFailuresError,
    WorkerMapping,
    WorkerMetrics,
    WorkerState,
)


async def fetch(url: str) -> bytes:
    return url.encode()


def parse(body: bytes) -> int:
    return len(body)


class Client:
    async def get(self, url: str) -> bytes:
        return url.encode()

    async def __call__(self, url: str) -> bytes:
        return url.encode()


def retry_after(error: Exception) -> bool | float | dt.timedelta:
    return dt.timedelta(seconds=1) if isinstance(error, OSError) else False


async def on_status_change(event: StatusEvent) -> None:
    assert_type(event.worker_id, int | None)
    assert_type(event.exception, BaseException | None)


def on_success(item_id: Any, value: Any, payload: dict[str, Any]) -> None: ...


stages = [
    Stage("Fetch", 10, [fetch, Client().get, Client(), functools.partial(fetch)]),
    Stage("Parse", workers=2, tasks=(parse, lambda value: value), retry="per_stage"),
    Stage(
        "Load",
        tasks=[parse],
        retry=RetryPolicy(scope="stage", on=(OSError, ValueError)),
        task_concurrency_limits={"parse": 1},
        on_success=on_success,
        skip_if=lambda value: value is None,
        queue_capacity=math.inf,
        task_timeout=5,
    ),
]
Stage("Bad", tasks=[fetch], retry="sometimes")  # type: ignore[arg-type]  # pyright: ignore
Stage("Bad", "3", [fetch])  # type: ignore[arg-type]  # pyright: ignore
RetryPolicy(on=retry_after)
RetryPolicy(on=5)  # type: ignore[arg-type]  # pyright: ignore

tracker = StatusTracker(on_status_change, on_task_start=print, history=10, keep_done=5)
pipeline = Pipeline(stages=stages, status_tracker=tracker, handle_signals=True)
Pipeline(stages=stages, keep_failures=9, keep_frames=True)
pipeline.open(handle_signals=False)
pipeline.stream([1], handle_signals=True)
pipeline.stream([1], handle_signals="yes")  # type: ignore[arg-type]  # pyright: ignore
Pipeline([fetch])  # type: ignore[list-item]  # pyright: ignore
Stage("Bad", tasks=fetch)  # type: ignore[arg-type]  # pyright: ignore
Stage("Bad", tasks=[fetch], task_concurrency_limits={fetch: 1})  # type: ignore[dict-item]  # pyright: ignore
assert_type(pipeline.stages, tuple[Stage, ...])


async def numbers() -> AsyncIterator[int]:
    yield 1


async def use() -> None:
    results = await pipeline.run(range(3), max_failures=2)
    assert_type(results, Results)
    assert_type(results[0], PipelineResult)
    assert_type(results[0].is_success, bool)
    assert_type(results.failures, list[FailedItem])
    assert_type(results.failures[0].as_exception(), TaskFailedError)
    assert_type(results.failures[0].as_item(from_start=False), Item)
    assert_type(results[0].failure, FailedItem | None)
    assert_type(results[0].value_or_raise(), Any)
    assert_type(results.to_dict(), dict[str, Any])
    assert_type(results[0].to_dict(), dict[str, Any])
    assert_type(pipeline.get_dashboard_snapshot().to_dict(), dict[str, Any])
    await pipeline.run(results)
    await pipeline.run(results.failures)
    Stage("One attempt", tasks=[fetch], retry=None)
    await pipeline.run(numbers())
    await pipeline.run([Item(1, id="a", metadata={})])
    await pipeline.run(5)  # type: ignore[arg-type]  # pyright: ignore
    try:
        results.raise_for_failures()
    except TooManyFailuresError as error:
        assert_type(error.results, Results | None)


def query() -> None:
    stats = pipeline.get_stats()
    assert_type(stats, PipelineStats)
    assert_type(stats.stage_stats, dict[str, StageStats])
    assert_type(pipeline.get_worker_names(), dict[str, list[str]])
    assert_type(pipeline.get_worker_states(), WorkerMapping[WorkerState])
    assert_type(pipeline.get_worker_metrics(), WorkerMapping[WorkerMetrics])
    assert_type(pipeline.get_error_summary(), ErrorSummary)
    assert_type(pipeline.get_dashboard_snapshot(), DashboardSnapshot)
    assert_type(tracker.get_status(1), StatusEvent | None)
    assert_type(tracker.forget(1), bool)
    assert_type(tracker.get_stats(), dict[str, int])
    bus = pipeline.events
    assert_type(bus, EventBus)

    def on_task(event: TaskEvent) -> None:
        assert_type(event.attempt, int)
        assert_type(event.duration, float | None)

    assert_type(bus.subscribe(TaskEvent, on_task), Subscription)
