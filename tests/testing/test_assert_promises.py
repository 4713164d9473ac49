"""The check of the promises finds nothing in correct runs, and what is wrong in wrong ones."""

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
    """Make an entry from words: a read, a result, or an event of an item at a stage."""
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


def made(*lines: str, pipeline: Pipeline | None = None) -> EventLog:
    """Return a log in which *lines* happened."""
    log = EventLog(pipeline or two_stages())
    log.entries += [entry_of(line.strip()) for text in lines for line in text.split(";")]
    return log


def at(stage: str, number: int, *names: str, end: str = "completed") -> str:
    """Return all that happens to an item at a stage."""
    tasks = [
        f"{number} {stage} {kind} {name} 1" for name in names for kind in ("start", "complete")
    ]
    steps = [f"{number} {stage} queued", f"{number} {stage} in_progress", *tasks]
    return "; ".join([*steps, f"{number} {stage} {end}"])


def through(number: int) -> str:
    return "; ".join([at("A", number, "task"), at("B", number, "task", "other")])


def results_of(*numbers: int, failures: Any = ()) -> Results:
    return Results((PipelineResult(number, None, number) for number in numbers), failures)


GOOD = ["open; read 0", through(0), "read 1", through(1), "end"]


def test_a_correct_log_is_accepted() -> None:
    assert_promises(made(*GOOD))
    assert_promises(made(*GOOD), results_of(0, 1))
    assert_promises(made(through(0), through(1)))
    assert_promises(made())


def refused(words: str, log: EventLog, *args: Any, **options: Any) -> str:
    with pytest.raises(AssertionError, match=words) as caught:
        assert_promises(log, *args, **options)
    return str(caught.value)


def test_p1_an_item_without_an_outcome_is_found_unless_the_run_was_cut_short() -> None:
    log = made("open; read 0", at("A", 0, "task"), "0 B queued", "end")
    message = refused("P1 accounted is broken for item 0, stage 'B': it has no outcome", log)
    assert message.splitlines()[-1] == "  [7] B: queued"
    assert "  [1] read as number 0\n  [2] A: queued\n  [3] A: in_progress, A-W0\n" in message
    assert_promises(log, complete=False)
    log = made("open; read 0; end")
    refused("P1 accounted is broken for item 0: it has no outcome.*complete=False", log)


@pytest.mark.parametrize("complete", [True, False])
def test_p1_an_item_with_two_outcomes_is_found(complete: bool) -> None:
    log = made(*GOOD, "0 B failed")
    refused(
        "P1 .* item 0, stage 'B': it has 2 outcomes. There should be one", log, complete=complete
    )


def test_p1_an_item_that_was_never_read_is_found() -> None:
    refused("P1 .* item 2: it has events, and was never read", made(*GOOD, through(2)))


def test_p1_results_that_the_events_deny_are_found() -> None:
    refused(
        r"P1 .* item 1, stage 'B': the events say completed, and it did not come out",
        made(*GOOD),
        results_of(0),
    )
    assert_promises(made(*GOOD), results_of(0), complete=False)
    refused("P1 .* item 0: it came out 2 times. Once is right", made(*GOOD), results_of(0, 0, 1))
    refused(
        "P1 .* item 7: it is among the results, and has no events", made(*GOOD), results_of(0, 1, 7)
    )
    failed = [
        "open; read 0; 0 A queued; 0 A in_progress; 0 A start task 1; 0 A fail task 1; 0 A failed"
    ]
    log = made(*failed)
    refused(
        "P1 .* item 0, stage 'A': it is among the results, and the events say failed",
        log,
        results_of(0),
    )
    refused("P1 .* item 0, stage 'A': the events say failed, and it did not come out", log, [])
    assert_promises(log, [PipelineResult(0, None, 0, error=ValueError())])
    log = made(*GOOD)
    lost = [PipelineResult(0, None, 0, error=ValueError()), PipelineResult(1, None, 1)]
    refused("P1 .* item 0, stage 'B': it is among the failures, and the events say comp", log, lost)


def test_p1_results_that_are_not_collected_are_not_missed() -> None:
    pipeline = Pipeline([Stage("A", 1, [task])], collect_results=False)
    assert_promises(made(at("A", 0, "task"), pipeline=pipeline), results_of())
    refused("did not come out", made(at("A", 0, "task"), pipeline=pipeline), [])


def test_p2_results_out_of_order_are_found() -> None:
    words = "P2 input order is broken for item 0: number 0 of the input came out after number 1"
    refused(words, made(*GOOD), results_of(1, 0))
    changed = [PipelineResult(0, None, 1), PipelineResult(1, None, 0)]
    refused("P2 .* item 0: its sequence_id is 1. It was read as number 0", made(*GOOD), changed)


def test_p2_holds_for_streams_in_input_order_and_not_in_order_of_arrival() -> None:
    log = made(*GOOD, "take 1; take 0")
    log.buffer_size = 1
    assert_promises(log)
    log.window = 2
    refused("P2 .* item 0: number 0 of the input came out after number 1", log)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("0 A in_progress", "'A: in_progress' came first. It should have been 'A: queued' or 'B: "),
        (
            "0 A queued; 0 A completed",
            "'A: completed' came after 'A: queued'. It should have been 'A: in_progress'",
        ),
        (
            "0 A queued; 0 A in_progress; 0 A skipped",
            "'A: skipped' came .* 'A: start task, attempt 1'\\.",
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
            "been 'A: failed'",
        ),
        (
            "0 A queued; 0 A in_progress; 0 A start task 1; 0 A retry task 1; 0 A retrying",
            "'A: start task, attempt 2'",
        ),
        (
            "0 B queued; 0 B in_progress; 0 B start task 1; 0 B complete task 1; 0 B completed",
            "'B: start other, a",
        ),
        ("0 A queued; 0 B queued", "stage 'B': 'B: queued' came after 'A: queued'"),
        (at("A", 0, "task") + "; 0 A queued", "It should have been 'B: queued'"),
        (at("B", 0, "task", "other") + "; 0 A queued", "It should have been nothing more"),
    ],
)
def test_p3_events_in_the_wrong_order_are_found(lines: str, words: str) -> None:
    message = refused(words, made(lines), complete=False)
    assert message.startswith("P3 item order is broken for item 0, stage ")


def test_p3_knows_both_ways_to_retry_and_to_skip() -> None:
    tries = "{n} A queued; {n} A in_progress; {n} A start task 1; {n} A retry task 1; "
    tries += "{again}{n} A start task 2; {n} A fail task 2; {n} A failed"
    as_a_whole = tries.format(n=0, again="0 A retrying; 0 A in_progress; ")
    assert_promises(made(as_a_whole, pipeline=two_stages("per_stage")))
    assert_promises(made(tries.format(n=0, again="")))
    refused("P3 .* 'A: start task, attempt 2' or 'A: fail task, attempt 1'", made(as_a_whole))
    skipping = two_stages(skip_if=bool)
    assert_promises(made("0 A queued; 0 A in_progress; 0 A failed", pipeline=skipping))
    skipped = ["0 A queued; 0 A in_progress; 0 A skipped", at("B", 0, "task", "other")]
    assert_promises(made(*skipped, pipeline=skipping))


STARTED = "; 1 A in_progress; 1 A start task 1; 1 A complete task 1; 1 A completed"


def test_p4_an_item_that_overtakes_at_a_single_worker_is_found() -> None:
    single = Pipeline([Stage("A", 1, [task], "per_stage", queue_capacity=9)])
    early = ["open; read 0; 0 A queued; read 1; 1 A queued; end" + STARTED]
    words = "P4 FIFO is broken for item 1, stage 'A': it started before item 0, which was in"
    refused(words, made(*early, pipeline=single), complete=False)
    several = Pipeline([Stage("A", 2, [task], queue_capacity=9)])
    assert_promises(made(*early, pipeline=several), complete=False)
    urgent = ["open; read 0; 0 A queued; read 1 7; 1 A queued; end" + STARTED]
    assert_promises(made(*urgent, pipeline=single), complete=False)
    again = "open; read 0; 0 A queued; read 1; 1 A queued; end; 0 A in_progress; "
    again += "0 A start task 1; 0 A retry task 1; 0 A retrying; "
    assert_promises(
        made(again + STARTED[2:] + "; 0 A in_progress", pipeline=single), complete=False
    )


def test_p4_an_item_in_the_hand_of_its_sender_may_be_overtaken() -> None:
    chain = Pipeline([Stage("A", 2, [task]), Stage("B", 1, [task])])

    def begun(number: int) -> str:
        return (
            at("A", number, "task")
            .replace("A in_progress", f"A in_progress {number}")
            .replace("A completed", f"A completed {number}")
        )

    sent = [begun(0), "0 B queued", begun(1), "1 B queued"]
    assert_promises(made(*sent, "1 B in_progress", pipeline=chain), complete=False)
    # The worker that had it went on to another, so that it must have been in the queue.
    goes_on = [begun(0), "0 B queued; 2 A queued; 2 A in_progress 0", begun(1), "1 B queued"]
    words = "P4 .* item 1, stage 'B': it started before item 0"
    refused(words, made(*goes_on, "1 B in_progress", pipeline=chain), complete=False)


def test_p5_more_items_in_progress_than_workers_are_found() -> None:
    lines = "0 A queued; 0 A in_progress; 1 A queued; 1 A in_progress"
    message = refused(
        "P5 bounded is broken for item 1, stage 'A': it is in progress as one of 2. There should "
        "be at most 1",
        made(lines),
        complete=False,
    )
    assert "[3] A: in_progress, A-W0" in message


def test_p5_more_items_that_wait_than_there_is_room_for_are_found() -> None:
    # One for the worker, none in the queue, one in the hand of the source.
    full = ["open; read 0; 0 A queued; read 1; 1 A queued"]
    assert_promises(made(*full), complete=False)
    more = "; 2 A queued"
    words = "P5 .* item 2, stage 'A': 3 items are at the stage, 0 of them in progress. There should"
    refused(words, made(*full, "read 2" + more), complete=False)
    # It is not known how many feed.
    assert_promises(made("0 A queued; 1 A queued" + more), complete=False)


def test_p5_those_who_send_from_the_stage_before_may_each_have_one_in_hand() -> None:
    # The queue takes one, two may be with the workers of B, one with that of A.
    sent = [f"{at('A', number, 'task')}; {number} B queued" for number in range(5)]
    assert_promises(made(*sent[:4]), complete=False)
    # As it takes the next one, the one in its hand must have found room.
    words = "P5 .* item 4, stage 'B': 4 items are .* There should be at most 3"
    refused(words, made(*sent), complete=False)


def test_p5_a_source_that_is_read_too_far_ahead_is_found() -> None:
    # One worker and none waiting, two workers and one waiting, and one in hand.
    assert_promises(made("open", *(f"read {n}" for n in range(5)), "stop"), complete=False)
    log = made("open", *(f"read {n}" for n in range(6)), "stop")
    words = "P5 .* item 5: it was read as one of 6 that are under way. At most 5 should be"
    refused(words, log, complete=False)


def test_p5_a_stream_that_reads_too_far_ahead_of_its_consumer_is_found() -> None:
    gone = ["open; read 0", through(0), "take 0"]
    for number in range(1, 9):
        gone += [f"read {number}", through(number)]
    log = made(*gone)
    log.buffer_size = 3
    assert_promises(log, complete=False)
    log.buffer_size = 2
    words = (
        "P5 .* item 8: it was read as one of 8 that the consumer has not taken. At most 7 should"
    )
    assert "and the buffer of the stream" in refused(words, log, complete=False)
    log.window = 7
    words = "P5 .* item 8: .* 8 that the consumer .* At most 7 should be: the window of the stream"
    refused(words, log, complete=False)


def test_p5_a_source_that_has_ended_has_nothing_in_hand() -> None:
    log = made("open; read 0; 0 A queued; end; open 1; read 1; 1 A queued; read 2; 2 A queued")
    refused("P5 .* item 2, stage 'A': 3 items .* at most 2", log, complete=False)


def test_ids_must_be_unique() -> None:
    words = "numbers 0 and 0 of the input both have the id 0. Feed them .*Item"
    with pytest.raises(ValueError, match=words):
        assert_promises(made("open; read 0; read 0"))


@pytest.mark.parametrize(
    ("call", "words"),
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
def test_arguments_are_checked(call: Any, words: str) -> None:
    with pytest.raises(StageValidationError, match=words):
        call(made())


@pytest.mark.virtual_time
@given(pipeline=pipelines(), source=sources())
async def test_runs_keep_the_promises(pipeline: Pipeline, source: Any) -> None:
    log = EventLog(pipeline)
    assert_promises(log, await pipeline.run(log.source(source)))


@pytest.mark.virtual_time
@given(pipeline=pipelines(), source=sources(), patience=st.sampled_from([0.5, 3.0, 20.0]))
async def test_runs_that_are_cancelled_keep_the_promises(
    pipeline: Pipeline, source: Any, patience: float
) -> None:
    log = EventLog(pipeline)
    with anyio.move_on_after(patience):
        await pipeline.run(log.source(source))
    assert_promises(log, pipeline.results, complete=False)


async def test_runs_that_are_stopped_keep_the_promises() -> None:
    pipeline = Pipeline([Stage("A", 2, [failing(), flaky()], task_wait_seconds=0)])
    log = EventLog(pipeline)
    with pytest.raises(TooManyFailuresError) as caught:
        await pipeline.run(log.source(range(50)), max_failures=3)
    assert caught.value.results is not None
    assert_promises(log, caught.value.results, complete=False)


async def test_a_log_of_two_runs_is_told_from_a_broken_promise() -> None:
    pipeline = Pipeline([Stage("A", 2, [slow(0)])])
    log = EventLog(pipeline)
    for _ in range(2):
        await pipeline.run(log.source(range(3)))
    refused("P1 .* item 0, stage 'A': it has 2 outcomes.* the log was used for a second run", log)
