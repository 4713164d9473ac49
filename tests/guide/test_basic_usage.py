"""User guide, "Basic Usage"."""

from __future__ import annotations

from antflow import Pipeline, Stage


async def fetch(x: int) -> str:
    return f"data_{x}"


async def process(x: str) -> str:
    return x.upper()


async def test_items_pass_through_the_stages_and_results_come_from_the_last_stage() -> None:
    pipeline = Pipeline(
        stages=[
            Stage(name="Fetch", workers=3, tasks=[fetch]),
            Stage(name="Process", workers=2, tasks=[process]),
        ]
    )
    results = await pipeline.run(range(10))
    assert [result.value for result in results] == [f"DATA_{x}" for x in range(10)]


async def test_a_stage_has_one_or_more_tasks_that_run_in_sequence() -> None:
    async def validate(x: int) -> int:
        if x < 0:
            raise ValueError("Negative value")
        return x

    async def transform(x: int) -> int:
        return x * 2

    async def format_output(x: int) -> str:
        return f"Result: {x}"

    stage = Stage(name="ProcessStage", workers=3, tasks=[validate, transform, format_output])
    results = await Pipeline(stages=[stage]).run(range(10))
    assert results.values == [f"Result: {2 * x}" for x in range(10)]
