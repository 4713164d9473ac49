"""Ctrl-C and SIGTERM: the first lets a run finish what it has, the second ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from anyio import open_signal_receiver

from ._errors import PipelineError
from ._run import Run


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
def _handler_of_interrupts_kept() -> Iterator[None]:
    """Put back the handler of SIGINT: asyncio, when it lets a signal go, sets Python's own."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


async def heed_signals(run: Run) -> None:
    """Drain *run* at the first SIGINT or SIGTERM, cancel it at the second."""
    receiver = open_signal_receiver(signal.SIGINT, signal.SIGTERM)
    with _handler_of_interrupts_kept(), receiver as signals:
        async for _ in signals:
            if run.draining:
                run.interrupted = True
                run.cancel()
            else:
                run.drain()
