"""Ctrl-C and SIGTERM: the first lets a run finish what it has, the second ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from anyio import TASK_STATUS_IGNORED, open_signal_receiver, sleep_forever
from anyio.abc import TaskStatus

from .._model.errors import PipelineError
from .run import Run

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def check_main_thread() -> None:
    """
    Refuse to handle signals where Python does not deliver them.

    Raises:
        PipelineError: This is not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise PipelineError(
            "run(handle_signals=True) works in the main thread only: Python delivers signals "
            f"there, and this is {threading.current_thread().name!r}. Leave it out here, handle "
            "the signals in the main thread, and call pipeline.shutdown() from there."
        )


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put back the handlers: asyncio, when it lets go of a signal, sets the default."""
    # One that was not set from Python cannot be put back.
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


async def heed_signals(run: Run, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
    """Drain *run* at the first SIGINT or SIGTERM, cancel it at the second."""
    with _handlers_kept(), open_signal_receiver(*_SIGNALS) as signals:
        task_status.started()
        await anext(signals)
        run.drain()
        await anext(signals)
        run.interrupted = True
        run.cancel()
        await sleep_forever()
