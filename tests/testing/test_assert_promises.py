"""`assert_promises()` accepts logs of correct runs and finds what is wrong in others."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import (
    Pipeline,
    PipelineResult,
    Results,
    Stage,
    StageValidationError,
    StatusEvent,
    TaskEvent,
    TooManyFailuresError,
)
from antflow.testing import (
    Ended,
    EventLog,
    Opened,
    Read,
    Taken,
    assert_promises,
    failing,
    flaky,
    pipelines,
    slow,
    sources,
)


async def task(value: Any) -> Any:
    return value


async def other(value: Any) -> Any:
    return value


def two_stages(retry: Any = "per_task", **options: Any) -> Pipeline:
    return Pipeline(
        [
            Stage("A", 1, [task], retry, queue_capacity=0, **options),
            Stage("B", 2, [task, other], queue_capacity=1),
        ]
    )


def entry_of(line: str) -> Any:
    """Return the entry that *line* describes, for example "read 0" or "0 A start task 1"."""
    match line.split():
        case ["open", *number]:
            return Opened(int(*number or "0"))
        case ["end", *number]:
            return Ended(int(*number or "0"))
        case ["stop"]:
            return Ended(0, early=True)
        case ["read", number, *priority]:
            return Read(int(number), int(number), 0, *map(int, priority))
        case ["take", number]:
            return Taken(PipelineResult(int(number), None, int(number)))
        case [number, stage, ("start" | "complete" | "retry" | "fail") as kind, name, attempt]:
            return TaskEvent(int(number), stage, name, f"{stage}-W0", kind, int(attempt), 0.0)
        case [number, stage, status, *worker]:
            name = None if status == "queued" else f"{stage}-W{''.join(worker) or '0'}"
            return StatusEvent(int(number), stage, status, name, 0.0)  # type: ignore[arg-type]
    raise AssertionError(line)


def log_of(*lines: str, pipeline: Pipeline | None = None) -> EventLog:
    """Return a log with the entries that *lines* describe."""
    log = EventLog(pipeline or two_stages())
    log.entries += [entry_of(line.strip()) for text in lines for line in text.split(";")]
    return log


def at(stage: str, number: int, *names: str, end: str = "completed") -> str:
    """Return the lines of an item at a stage, with one attempt of each task in *names*."""
    tasks = [
        f"{number} {stage} {kind} {name} 1" for name in names for kind in ("start", "complete")
    ]
    steps = [f"{number} {stage} queued", f"{number} {stage} in_progress", *tasks]
    return "; ".join([*steps, f"{number} {stage} {end}"])


def through(number: int) -> str:
    """Return the lines of an item that completes both stages."""
    return "; ".join([at("A", number, "task"), at("B", number, "task", "other")])


def results_of(*numbers: int, failures: Any = ()) -> Results:
    return Results((PipelineResult(number, None, number) for number in numbers), failures)


GOOD = ["open; read 0", through(0), "read 1", through(1), "end"]


def test_a_correct_log_is_accepted() -> None:
    assert_promises(log_of(*GOOD))
    assert_promises(log_of(*GOOD), results_of(0, 1))
    assert_promises(log_of(through(0), through(1)))
    assert_promises(log_of())


def rejected(pattern: str, log: EventLog, *args: Any, **options: Any) -> str:
    """Check that the log is rejected with an error that matches *pattern*; return the message."""
    with pytest.raises(AssertionError, match=pattern) as caught:
        assert_promises(log, *args, **options)
    return str(caught.value)


def test_p1_an_item_without_an_outcome_is_found_unless_the_run_is_incomplete() -> None:
    log = log_of("open; read 0", at("A", 0, "task"), "0 B queued", "end")
    message = rejected("P1 accounted is broken for item 0, stage 'B': it has no outcome", log)
    assert message.splitlines()[-1] == "  [7] B: queued"
    assert (
        "  [1] read from the source as number 0\n  [2] A: queued\n  [3] A: in_progress, A-W0\n"
        in message
    )
    assert_promises(log, complete=False)
    log = log_of("open; read 0; end")
    rejected("P1 accounted is broken for item 0: it has no outcome.*complete=False", log)


@pytest.mark.parametrize("complete", [True, False])
def test_p1_an_item_with_two_outcomes_is_found(complete: bool) -> None:
    log = log_of(*GOOD, "0 B failed")
    rejected("P1 .* item 0, stage 'B': it has 2 outcomes. Expected one", log, complete=complete)


def test_p1_an_item_that_was_never_read_is_found() -> None:
    rejected("P1 .* item 2: it has events but was never read", log_of(*GOOD, through(2)))


def test_p1_results_that_contradict_the_events_are_found() -> None:
    rejected(
        r"P1 .* item 1, stage 'B': its final event is 'completed', but it was not returned",
        log_of(*GOOD),
        results_of(0),
    )
    assert_promises(log_of(*GOOD), results_of(0), complete=False)
    rejected(
        "P1 .* item 0: it was returned 2 times. Expected it once",
        log_of(*GOOD),
        results_of(0, 0, 1),
    )
    rejected(
        "P1 .* item 7: it is among the results but has no events",
        log_of(*GOOD),
        results_of(0, 1, 7),
    )
    failed = [
        "open; read 0; 0 A queued; 0 A in_progress; 0 A start task 1; 0 A fail task 1; 0 A failed"
    ]
    log = log_of(*failed)
    rejected(
        "P1 .* item 0, stage 'A': it is among the results, but its final event is 'failed'",
        log,
        results_of(0),
    )
    rejected(
        "P1 .* item 0, stage 'A': its final event is 'failed', but it was not returned", log, []
    )
    assert_promises(log, [PipelineResult(0, None, 0, error=ValueError())])
    log = log_of(*GOOD)
    lost = [PipelineResult(0, None, 0, error=ValueError()), PipelineResult(1, None, 1)]
    rejected("P1 .* item 0, stage 'B': it is among the failures, but its final event is", log, lost)


def test_p1_uncollected_results_may_be_missing() -> None:
    pipeline = Pipeline([Stage("A", 1, [task])], collect_results=False)
    assert_promises(log_of(at("A", 0, "task"), pipeline=pipeline), results_of())
    rejected("was not returned", log_of(at("A", 0, "task"), pipeline=pipeline), [])


def test_p2_results_out_of_order_are_found() -> None:
    pattern = (
        "P2 input order is broken for item 0: number 0 of the input was returned after number 1"
    )
    rejected(pattern, log_of(*GOOD), results_of(1, 0))
    changed = [PipelineResult(0, None, 1), PipelineResult(1, None, 0)]
    rejected("P2 .* item 0: its sequence_id is 1. It was read as number 0", log_of(*GOOD), changed)


def test_p2_holds_for_ordered_streams_only() -> None:
    log = log_of(*GOOD, "take 1; take 0")
    log.buffer_size = 1
    assert_promises(log)
    log.window = 2
    rejected("P2 .* item 0: number 0 of the input was returned after number 1", log)


@pytest.mark.parametrize(
    ("lines", "pattern"),
    [
        ("0 A in_progress", "'A: in_progress' was the first event. Expected 'A: queued' or 'B: "),
        (
            "0 A queued; 0 A completed",
            "'A: completed' followed 'A: queued'. Expected 'A: in_progress'",
        ),
        (
            "0 A queued; 0 A in_progress; 0 A skipped",
            "'A: skipped' followed .* 'A: start task, attempt 1'\\.",
        ),
        ("0 A queued; 0 A in_progress; 0 A completed", "'A: start task, attempt 1'"),
        ("0 A queued; 0 A in_progress; 0 A start task 2", "'A: start task, attempt 1'"),
        ("0 A queued; 0 A in_progress; 0 A start other 1", "'A: start task, attempt 1'"),
        (
            "0 A queued; 0 A in_progress; 0 A start task 1; 0 A completed",
            "'A: complete task, attempt 1' or",
        ),
        (
            "0 A queued; 0 A in_progress; 0 A start task 1; 0 A fail task 1; 0 A completed",
            "Expected 'A: failed'",
        ),
        (
            "0 A queued; 0 A in_progress; 0 A start task 1; 0 A retry task 1; 0 A retrying",
            "'A: start task, attempt 2'",
        ),
        (
            "0 B queued; 0 B in_progress; 0 B start task 1; 0 B complete task 1; 0 B completed",
            "'B: start other, a",
        ),
        ("0 A queued; 0 B queued", "stage 'B': 'B: queued' followed 'A: queued'"),
        (at("A", 0, "task") + "; 0 A queued", "Expected 'B: queued'"),
        (at("B", 0, "task", "other") + "; 0 A queued", "Expected no further event"),
    ],
)
def test_p3_events_in_the_wrong_order_are_found(lines: str, pattern: str) -> None:
    message = rejected(pattern, log_of(lines), complete=False)
    assert message.startswith("P3 item order is broken for item 0, stage ")


def test_p3_allows_both_retry_scopes_and_skips() -> None:
    tries = "{n} A queued; {n} A in_progress; {n} A start task 1; {n} A retry task 1; "
    tries += "{again}{n} A start task 2; {n} A fail task 2; {n} A failed"
    per_stage = tries.format(n=0, again="0 A retrying; 0 A in_progress; ")
    assert_promises(log_of(per_stage, pipeline=two_stages("per_stage")))
    assert_promises(log_of(tries.format(n=0, again="")))
    rejected("P3 .* 'A: start task, attempt 2' or 'A: fail task, attempt 1'", log_of(per_stage))
    skipping = two_stages(skip_if=bool)
    assert_promises(log_of("0 A queued; 0 A in_progress; 0 A failed", pipeline=skipping))
    skipped = ["0 A queued; 0 A in_progress; 0 A skipped", at("B", 0, "task", "other")]
    assert_promises(log_of(*skipped, pipeline=skipping))


STARTED = "; 1 A in_progress; 1 A start task 1; 1 A complete task 1; 1 A completed"


def test_p4_an_item_that_overtakes_at_a_single_worker_is_found() -> None:
    single = Pipeline([Stage("A", 1, [task], "per_stage", queue_capacity=9)])
    early = ["open; read 0; 0 A queued; read 1; 1 A queued; end" + STARTED]
    pattern = "P4 FIFO is broken for item 1, stage 'A': it started before item 0, which was in"
    rejected(pattern, log_of(*early, pipeline=single), complete=False)
    several = Pipeline([Stage("A", 2, [task], queue_capacity=9)])
    assert_promises(log_of(*early, pipeline=several), complete=False)
    urgent = ["open; read 0; 0 A queued; read 1 7; 1 A queued; end" + STARTED]
    assert_promises(log_of(*urgent, pipeline=single), complete=False)
    again = "open; read 0; 0 A queued; read 1; 1 A queued; end; 0 A in_progress; "
    again += "0 A start task 1; 0 A retry task 1; 0 A retrying; "
    assert_promises(
        log_of(again + STARTED[2:] + "; 0 A in_progress", pipeline=single), complete=False
    )


def test_p4_an_item_whose_sender_waits_for_space_may_be_overtaken() -> None:
    chain = Pipeline([Stage("A", 2, [task]), Stage("B", 1, [task])])

    def begun(number: int) -> str:
        return (
            at("A", number, "task")
            .replace("A in_progress", f"A in_progress {number}")
            .replace("A completed", f"A completed {number}")
        )

    sent = [begun(0), "0 B queued", begun(1), "1 B queued"]
    assert_promises(log_of(*sent, "1 B in_progress", pipeline=chain), complete=False)
    # The worker that sent item 0 started another item, so item 0 must have been in the queue.
    moved_on = [begun(0), "0 B queued; 2 A queued; 2 A in_progress 0", begun(1), "1 B queued"]
    pattern = "P4 .* item 1, stage 'B': it started before item 0"
    rejected(pattern, log_of(*moved_on, "1 B in_progress", pipeline=chain), complete=False)


def test_p5_more_items_in_progress_than_workers_are_found() -> None:
    lines = "0 A queued; 0 A in_progress; 1 A queued; 1 A in_progress"
    message = rejected(
        "P5 bounded is broken for item 1, stage 'A': it is one of 2 items in progress. "
        "Expected at most 1",
        log_of(lines),
        complete=False,
    )
    assert "[3] A: in_progress, A-W0" in message


def test_p5_more_waiting_items_than_the_queue_allows_are_found() -> None:
    # One item for the worker, none in the queue, one that the source holds.
    full = ["open; read 0; 0 A queued; read 1; 1 A queued"]
    assert_promises(log_of(*full), complete=False)
    more = "; 2 A queued"
    pattern = "P5 .* item 2, stage 'A': 3 items are at the stage, 0 of them in progress. Expected"
    rejected(pattern, log_of(*full, "read 2" + more), complete=False)
    # The number of sources is unknown.
    assert_promises(log_of("0 A queued; 1 A queued" + more), complete=False)


def test_p5_each_worker_of_the_previous_stage_may_hold_one_item_to_send() -> None:
    # One item in the queue, two with the workers of B, one with the worker of A.
    sent = [f"{at('A', number, 'task')}; {number} B queued" for number in range(5)]
    assert_promises(log_of(*sent[:4]), complete=False)
    # The worker of A has started the next item, so it has sent the previous one.
    pattern = "P5 .* item 4, stage 'B': 4 items are .* Expected at most 3"
    rejected(pattern, log_of(*sent), complete=False)


def test_p5_a_source_that_is_read_too_far_ahead_is_found() -> None:
    # A has one worker and no queue, B two workers and a queue of one, and the source holds one.
    assert_promises(log_of("open", *(f"read {n}" for n in range(5)), "stop"), complete=False)
    log = log_of("open", *(f"read {n}" for n in range(6)), "stop")
    pattern = "P5 .* item 5: it was read as one of 6 unfinished items. Expected at most 5"
    rejected(pattern, log, complete=False)


def test_p5_a_stream_that_reads_too_far_ahead_of_its_consumer_is_found() -> None:
    lines = ["open; read 0", through(0), "take 0"]
    for number in range(1, 9):
        lines += [f"read {number}", through(number)]
    log = log_of(*lines)
    log.buffer_size = 3
    assert_promises(log, complete=False)
    log.buffer_size = 2
    pattern = (
        "P5 .* item 8: it was read as one of 8 items that the consumer has not taken. Expected at "
        "most 7"
    )
    assert "and the buffer of the stream" in rejected(pattern, log, complete=False)
    log.window = 7
    pattern = (
        "P5 .* item 8: .* 8 items that the consumer .* Expected at most 7: the window of the stream"
    )
    rejected(pattern, log, complete=False)


def test_p5_a_source_that_has_ended_holds_no_item() -> None:
    log = log_of("open; read 0; 0 A queued; end; open 1; read 1; 1 A queued; read 2; 2 A queued")
    rejected("P5 .* item 2, stage 'A': 3 items .* at most 2", log, complete=False)


def test_ids_must_be_unique() -> None:
    pattern = "numbers 0 and 0 of the input both have the id 0. Give each .*Item"
    with pytest.raises(ValueError, match=pattern):
        assert_promises(log_of("open; read 0; read 0"))


@pytest.mark.parametrize(
    ("call", "pattern"),
    [
        (
            lambda log: assert_promises(log.pipeline),
            "log must be an EventLog.*Write log = EventLog",
        ),
        (lambda log: assert_promises(log, complete=1), "complete must be True or False"),
        (lambda log: assert_promises(log, {1}), "results must be a list of results, or None"),
        (lambda log: assert_promises(log, [1]), "results must be results of a pipeline, got 1"),
    ],
)
def test_arguments_are_checked(call: Any, pattern: str) -> None:
    with pytest.raises(StageValidationError, match=pattern):
        call(log_of())


@pytest.mark.virtual_time
@given(pipeline=pipelines(), source=sources())
async def test_runs_keep_the_promises(pipeline: Pipeline, source: Any) -> None:
    log = EventLog(pipeline)
    assert_promises(log, await pipeline.run(log.source(source)))


@pytest.mark.virtual_time
@given(pipeline=pipelines(), source=sources(), seconds=st.sampled_from([0.5, 3.0, 20.0]))
async def test_runs_that_are_cancelled_keep_the_promises(
    pipeline: Pipeline, source: Any, seconds: float
) -> None:
    log = EventLog(pipeline)
    with anyio.move_on_after(seconds):
        await pipeline.run(log.source(source))
    assert_promises(log, pipeline.results, complete=False)


async def test_runs_that_are_stopped_keep_the_promises() -> None:
    pipeline = Pipeline([Stage("A", 2, [failing(), flaky()], task_wait_seconds=0)])
    log = EventLog(pipeline)
    with pytest.raises(TooManyFailuresError) as caught:
        await pipeline.run(log.source(range(50)), max_failures=3)
    assert caught.value.results is not None
    assert_promises(log, caught.value.results, complete=False)


async def test_the_error_for_a_log_of_two_runs_names_that_cause() -> None:
    pipeline = Pipeline([Stage("A", 2, [slow(0)])])
    log = EventLog(pipeline)
    for _ in range(2):
        await pipeline.run(log.source(range(3)))
    rejected("P1 .* item 0, stage 'A': it has 2 outcomes.* the log covers a second run", log)
