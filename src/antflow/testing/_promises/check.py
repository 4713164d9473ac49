"""`assert_promises()`, which makes all checks of a log."""

from __future__ import annotations

from collections.abc import Sequence

from ..._definition.validation import check_flag, reject_argument
from ..._model.results import PipelineResult, Results
from .accounting import Accounting
from .bounds import check_bounds, check_fifo
from .event_log import EventLog
from .event_order import check_event_order


def assert_promises(
    log: EventLog, results: Sequence[PipelineResult] | None = None, *, complete: bool = True
) -> None:
    """
    Check from the entries of *log* that a run kept the promises P1 to P5.

    - P1 accounted: each input that was read has exactly one outcome, and the results agree with the
      events.
    - P2 input order: results are in input order, and have the numbers of their inputs.
    - P3 item order: the events of an item follow ``queued → in_progress → (retrying →
      in_progress)* → completed | failed | skipped``, with the attempts of the tasks in between. An
      item ends at one stage before it is queued at the next.
    - P4 FIFO: a stage with one worker starts items in the order in which they entered its queue.
      Only first starts are checked, not per-stage retries, and only items of equal priority are
      compared. An item whose sender still waits for space is not in the queue yet.
    - P5 bounded: at each event, at most ``workers`` items are in progress at a stage and at most
      ``queue_capacity`` items wait there, not counting items whose senders wait for space. The
      source is never read further ahead than these bounds, plus the buffer or the window of a
      stream.

    Which items were read is known only if all sources went through `EventLog.source()`. Otherwise
    P1 is checked only for items with events, and P4 and P5 are not checked for the source and the
    queue that it feeds.

    Args:
        log: The log of the run, created before the run.
        results: The object that ``run()`` returned, or a list of the results of a stream. By
            default the results that `EventLog.sink()` or `EventLog.take()` recorded, if one of them
            was used.
        complete: Pass False for a run that was cancelled, stopped or left early: then each item has
            at most one outcome. Default True.

    Raises:
        AssertionError: A promise was broken. The message says which one, for which item and at
            which stage, what was expected, and the history of the item.
        ValueError: Two items have the same id and cannot be told apart.
        StageValidationError: An argument is not valid.
    """
    __tracebackhide__ = True
    owner = "assert_promises()"
    if not isinstance(log, EventLog):
        hint = "Write log = EventLog(pipeline) before the run."
        reject_argument(owner, "log", "an EventLog", log, hint)
    check_flag(owner, "complete", complete)
    if results is not None and not isinstance(results, Sequence):
        hint = "Pass the object that run() returned, or a list of the results of a stream."
        reject_argument(owner, "results", "a list of results, or None", results, hint)
    if results is None and (log.buffer_size is not None or log.taken):
        results = log.taken
    accounting = Accounting(log)
    accounting.check_outcomes(complete)
    if results is not None:
        accounting.check_results(results, complete)
        # A stream with ordered=False has no window.
        unordered = log.buffer_size is not None and log.window is None
        accounting.check_order(results, isinstance(results, Results) or not unordered)
    check_event_order(log)
    check_fifo(log)
    check_bounds(log)
