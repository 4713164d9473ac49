"""One execution: opens the streams and the task group, wires the pools, and closes it all."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable, Mapping
from contextvars import copy_context
from typing import Any

from anyio import create_task_group, get_cancelled_exc_class
from anyio.abc import TaskGroup

from ._bus import EventBus
from ._entrance import open_entrance
from ._errors import PipelineError, leaves
from ._flow import back_off, feed, work
from ._limits import TaskLimits
from ._pool import Pool, StageHooks
from ._state import RunState
from ._task_runner import TaskRunner

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


async def execute(
    source: Iterable[Any] | AsyncIterable[Any],
    state: RunState,
    bus: EventBus,
    hooks: tuple[StageHooks, ...],
    limits: Mapping[str, int],
) -> None:
    """
    Take every item of *source* through the stages; what comes of them is in *state*.

    Args:
        source: Read lazily. If it is a generator it is closed at the end.
        state: The books of this run, one entry for each stage.
        bus: Where events are published.
        hooks: Those who are told of successes and failures, one entry for each stage.
        limits: By task name, how many attempts may run at the same time in all stages together.

    Raises:
        Exception: What the source raised, after what came before it is finished.
        PipelineError: A task of the run was cancelled from outside.
        BaseException: What is no failure of an item, such as KeyboardInterrupt: by itself, or, if
            there are several, in one flat group.
    """
    fatal: list[BaseException] = []
    streams: list[Any] = []
    try:
        async with create_task_group() as group:
            first = _wire(state, bus, hooks, TaskLimits(limits), group, streams)
            group.start_soon(feed, source, first)
    except BaseExceptionGroup as error_group:
        cancelled = get_cancelled_exc_class()
        fatal = [error for error in leaves(error_group) if not isinstance(error, cancelled)]
    finally:
        # Not before the group is done: a worker that is being cancelled must not find its stream
        # broken.
        for stream in streams:
            stream.close()
        state.end()
    source_error, state.source_error = state.source_error, None
    try:
        if len(fatal) > 1:
            raise BaseExceptionGroup("the run was ended by several errors", fatal)
        if fatal:
            raise fatal[0]
        if state.stopped:
            return
        if state.unfinished:
            # A task group takes the cancellation of a child for its own, and ends without a word.
            raise PipelineError(
                f"the run ended although {state.unfinished} of {state.admitted} items were not "
                "finished: something outside antflow cancelled a task of the run. Cancel the "
                "caller of run() instead, or a scope around it."
            )
        if source_error is not None:
            raise source_error
    finally:
        # Each of these is in the traceback that now leads here.
        del fatal, source_error


def _wire(
    state: RunState,
    bus: EventBus,
    hooks: tuple[StageHooks, ...],
    limits: TaskLimits,
    group: TaskGroup,
    streams: list[Any],
) -> Pool:
    """Build the pools from the last stage to the first, start them, and return the first."""
    # New workers are started by workers: without this, they would inherit the context variables
    # that tasks set there, instead of those of the caller.
    context = copy_context()

    def start(function: Any, *args: Any) -> None:
        context.run(group.start_soon, function, *args)

    pool: Pool | None = None
    for stage_state, stage_hooks in zip(reversed(state.stages), reversed(hooks)):
        stage = stage_state.stage
        send, receive, entrance, places = open_entrance(stage)
        streams += (send, receive)
        pool = Pool(
            state=state,
            stage_state=stage_state,
            bus=bus,
            hooks=stage_hooks,
            runner=TaskRunner(stage, bus, limits),
            receive=receive,
            entrance=entrance,
            places=places,
            following=pool,
            start_worker=lambda *args: start(work, *args),
            start_back_off=lambda *args: start(back_off, *args),
            stop=group.cancel_scope.cancel,
        )
        pool.grow()
    assert pool is not None  # a pipeline has at least one stage
    return pool
