"""User guide, "Error Handling"."""

from __future__ import annotations

import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker

pytestmark = pytest.mark.virtual_time


async def test_failures_are_in_the_tracker_and_in_event_metadata() -> None:
    async def risky_task(x: int) -> int:
        if x % 2:
            raise ValueError(f"odd {x}")
        return x

    errors: list[str] = []

    async def on_status_change(event: StatusEvent) -> None:
        if event.status == "failed":
            errors.append(f"Item {event.item_id} failed: {event.metadata.get('error')}")

    tracker = StatusTracker(on_status_change=on_status_change)
    stage = Stage(
        name="RiskyStage", workers=3, tasks=[risky_task], retry="per_task", task_attempts=3
    )
    await Pipeline(stages=[stage], status_tracker=tracker).run(range(4))
    assert (tracker.get_stats()["completed"], tracker.get_stats()["failed"]) == (2, 2)
    assert sorted(event.metadata["error"] for event in tracker.get_by_status("failed")) == [
        "odd 1",
        "odd 3",
    ]
    assert sorted(errors) == ["Item 1 failed: odd 1", "Item 3 failed: odd 3"]


async def test_a_failing_item_does_not_stop_the_others() -> None:
    async def risky_task(x: int) -> float:
        return 1 / x

    stage = Stage("RiskyStage", workers=3, tasks=[risky_task], task_attempts=1)
    results = await Pipeline([stage]).run(range(5))
    assert [result.id for result in results] == [1, 2, 3, 4]
    assert [failure.error_type for failure in results.failures] == ["ZeroDivisionError"]
