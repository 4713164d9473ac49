"""The errors of a run that has ended before everything was finished."""

from __future__ import annotations

from .._backend.task_groups import raise_errors
from .._model.errors import PipelineError
from .._state.lifecycle import Completion, EndReason, Lifecycle

# Reasons for which items may be left unfinished: the caller knows, or is given the error.
_INTENDED = {
    EndReason.CANCELLED,
    EndReason.INTERRUPTED,
    EndReason.TOO_MANY_FAILURES,
    EndReason.ERROR,
}


def raise_for_unexpected_end(lifecycle: Lifecycle, completion: Completion) -> None:
    """
    Raise if the run has left items or a source unfinished, and nobody has ended it.

    When a loop task of the run was cancelled natively, its task group ends without an error.

    Raises:
        PipelineError: That is so.
    """
    if completion.is_cut_short and lifecycle.reason not in _INTENDED:
        left = f"{completion.unfinished} of {completion.admitted} items were not finished"
        if not completion.unfinished:
            left = "a source was not read to its end"
        raise PipelineError(
            f"the run ended although {left}: something outside antflow cancelled a loop task of "
            "the run. Cancel the caller of run() instead, or a scope around it."
        )


def raise_for_early_end(
    lifecycle: Lifecycle, completion: Completion, source_errors: list[BaseException]
) -> None:
    """
    Raise what ended the run early.

    Raises:
        KeyboardInterrupt: A second signal left items unfinished.
        PipelineError: ``shutdown(drain=False)`` left items unfinished, or something unexpected did.
        BaseException: The error of *source_errors*; several in one flat group.
    """
    if lifecycle.reason is EndReason.INTERRUPTED and completion.unfinished:
        raise KeyboardInterrupt
    if source_errors:
        raise_errors(source_errors, "several sources raised")
    if lifecycle.was_cancelled and completion.unfinished:
        raise PipelineError(
            "the run was ended by shutdown(drain=False) before everything was finished: "
            f"{completion.unfinished} of {completion.admitted} items that were read."
        )
    raise_for_unexpected_end(lifecycle, completion)
