"""Ctrl-C and SIGTERM: the first drains a run, the second cancels it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from anyio import TASK_STATUS_IGNORED, open_signal_receiver, sleep_forever
from anyio.abc import TaskStatus

from .._model.errors import PipelineError
from .._state.lifecycle import EndReason
from .run import Run

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def check_main_thread() -> None:
    """
    Reject ``handle_signals=True`` where Python does not deliver signals.

    Raises:
        PipelineError: This is not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise PipelineError(
            "run(handle_signals=True) works in the main thread only: Python delivers signals "
            f"there, and this is {threading.current_thread().name!r}. Leave it out, handle the "
            "signals in the main thread, and run pipeline.shutdown() in the event loop of the run."
        )


@contextmanager
def _handlers_restored() -> Iterator[None]:
    """Restore Python's signal handlers at the end, because asyncio resets them to the defaults."""
    # getsignal() returns None for a handler that was not set from Python and cannot be restored.
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


async def handle_signals(run: Run, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
    """Drain *run* at the first SIGINT or SIGTERM, and cancel it at the second."""
    with _handlers_restored(), open_signal_receiver(*_SIGNALS) as signals:
        task_status.started()
        await anext(signals)
        run.drain()
        await anext(signals)
        run.cancel(EndReason.INTERRUPTED)
        await sleep_forever()
