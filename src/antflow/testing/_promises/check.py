"""Whether a run kept what antflow promises."""

from __future__ import annotations

from collections.abc import Sequence

from ..._definition.validation import check_flag, reject_argument
from ..._model.results import PipelineResult, Results
from .accounting import Accounts
from .bounds import check_bounds, check_first_in_first_out
from .event_log import EventLog
from .event_order import check_grammar


def assert_promises(
    log: EventLog, results: Sequence[PipelineResult] | None = None, *, complete: bool = True
) -> None:
    """
    Check from what *log* recorded that a run kept the promises P1 to P5.

    - P1 accounted: each input that was read has exactly one outcome, and what came out agrees with
      the events.
    - P2 input order: results are in the order of the input, and have its numbers.
    - P3 item order: the events of an item follow ``queued → in_progress → (retrying →
      in_progress)* → completed | failed | skipped``, with the attempts of the tasks in between; a
      stage is done with it before the next one is reached.
    - P4 FIFO: a stage with one worker starts items in the order in which they got into its queue.
      An item that its stage retries is checked at its first start, items are compared with those
      of the same priority, and one that waits for room in the hand of its sender is not in the
      queue yet.
    - P5 bounded: at each event, at most ``workers`` items are in progress at a stage, and at most
      ``queue_capacity`` wait there, beside those in the hands of senders; and the source was never
      read further ahead than that allows, plus the buffer or the window of a stream.

    What was read is known if all sources went through `EventLog.source()`. Without that, P1 is
    checked for items with events, and P4 and P5 not for the source and the queue behind it.

    Args:
        log: Made before the run.
        results: What ``run()`` returned, or a list of the results of a stream. By default what
            `EventLog.sink()` or `EventLog.take()` saw, if they were used.
        complete: False for a run that was cancelled, stopped, or left early: then each item has at
            most one outcome.

    Raises:
        AssertionError: A promise was broken. The message says which, for which item and in which
            stage, what should have been, and what happened to the item.
        ValueError: Items cannot be told apart, since two have the same id; or an argument is not
            valid.
    """
    __tracebackhide__ = True
    owner = "assert_promises()"
    if not isinstance(log, EventLog):
        hint = "Write log = EventLog(pipeline) before you run it."
        reject_argument(owner, "log", "an EventLog", log, hint)
    check_flag(owner, "complete", complete)
    if results is not None and not isinstance(results, Sequence):
        hint = "Give what run() returned, or a list of what a stream gave."
        reject_argument(owner, "results", "a list of results, or None", results, hint)
    if results is None and (log.buffer_size is not None or log.taken):
        results = log.taken
    accounts = Accounts(log)
    accounts.check_outcomes(complete)
    if results is not None:
        accounts.check_results(results, complete)
        # By arrival, a stream has no window.
        by_arrival = log.buffer_size is not None and log.window is None
        accounts.check_order(results, isinstance(results, Results) or not by_arrival)
    check_grammar(log)
    check_first_in_first_out(log)
    check_bounds(log)
