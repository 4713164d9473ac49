"""
Ctrl-C and SIGTERM: the first drains the runs that handle signals, the second ends them at once.

Theory of operation
===================

Signal handlers belong to the process, and runs may overlap in any order. So there is one handler,
`_handle`. It is installed while any run handles signals, and the handlers from before are restored
when the last of these runs has ended. (`loop.add_signal_handler` is not used, because what an
application has set with it could not be restored.)

1. A signal arrives: `_handle` notes it for each loop that has such runs, and schedules
   `_Receiver.deliver` there. Nothing else may happen in a signal handler.
2. The first signal drains all runs of the loop that handle signals at that time.
3. The next signal is the second if a run that has received the first is still there. Then all runs
   of the loop are cancelled, those that have started since included. If there is none, it counts as
   a first signal again.
4. When all runs have been cancelled, the handlers from before are restored although the runs have
   not ended yet. So a third signal does what it does without antflow.
5. A signal that has not been delivered when the last run ends is raised again, after the handlers
   from before are restored. The same happens if the loop does not run any more.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field

from .._backend.loops import Loop, current_loop
from .._model.errors import PipelineError
from .._state.lifecycle import EndReason
from .run import Run

# The signals, and what handles each in a new process.
_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


def check_main_thread() -> None:
    """
    Reject ``handle_signals=True`` where Python does not deliver signals.

    Raises:
        PipelineError: This is not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise PipelineError(
            "handle_signals=True works in the main thread only: Python delivers signals there, and "
            f"this is {threading.current_thread().name!r}. Leave it out here. Take `token = "
            "anyio.lowlevel.current_token()` here, handle the signals in the main thread, and call "
            "`anyio.from_thread.run(pipeline.shutdown, token=token)` there."
        )


@define(eq=False)
class _Listener:
    """A run, or a block, that handles signals."""

    drain: Callable[[], None]
    interrupt: Callable[[], None]
    # How many signals it has received: none, the first, the second.
    received: int = field(default=0, init=False)


@define(eq=False)
class _Receiver:
    """The listeners of one loop, and the signals that they have not received yet."""

    loop: Loop
    listeners: list[_Listener] = field(factory=list, init=False)
    pending: list[int] = field(factory=list, init=False)

    @property
    def is_active(self) -> bool:
        """Whether a signal would have an effect."""
        return any(listener.received < 2 for listener in self.listeners)

    def deliver(self) -> None:
        """Pass the pending signals to the listeners; called in the loop."""
        while self.pending and self.is_active:
            del self.pending[0]
            is_second = any(listener.received for listener in self.listeners)
            for listener in list(self.listeners):
                if not is_second:
                    listener.received = 1
                    listener.drain()
                elif listener.received < 2:
                    listener.received = 2
                    listener.interrupt()
        _restore_if_unused()


# By the token of the loop.
_receivers: dict[Any, _Receiver] = {}
# The handlers from before, while `_handle` is installed.
_previous: dict[int, Any] = {}


def _handle(number: int, frame: object) -> None:
    """Note signal *number*. This is the signal handler: it may interrupt any code."""
    is_reached = False
    for receiver in [receiver for receiver in _receivers.values() if receiver.is_active]:
        receiver.pending.append(number)
        if receiver.loop.call_soon(receiver.deliver):
            is_reached = True
        else:
            # The loop has stopped before its runs have ended.
            receiver.pending.clear()
            del _receivers[receiver.loop.token]
    if not is_reached:
        _restore()
        signal.raise_signal(number)


def _install() -> None:
    for number in _DEFAULTS:
        handler = signal.getsignal(number)
        if handler is not _handle:
            # A handler that was not set from Python cannot be restored.
            _previous[number] = handler or signal.SIG_DFL
            signal.signal(number, _handle)


def _restore() -> None:
    for number, default in _DEFAULTS.items():
        # Without one from before, somebody has restored `_handle` after its end.
        handler = _previous.pop(number, default)
        # What was set meanwhile stays.
        if signal.getsignal(number) is _handle:
            signal.signal(number, handler)


def _restore_if_unused(*ended: _Receiver) -> None:
    """If no signal would have an effect, restore the handlers; raise again what is pending."""
    receivers = list(_receivers.values())
    if not any(receiver.is_active for receiver in receivers):
        _restore()
        ended = (*ended, *receivers)
    pending = dict.fromkeys(number for receiver in ended for number in receiver.pending)
    for receiver in ended:
        receiver.pending.clear()
    for number in pending:
        signal.raise_signal(number)


class handling_signals:  # noqa: N801 - used like a function
    """
    Handle SIGINT and SIGTERM in this block, together with all other such blocks.

    (A generator-based context manager would set an attribute of each exception that passes, which
    some exceptions do not allow.)

    Args:
        drain: Called in the loop at the first signal.
        interrupt: Called in the loop at the second signal.

    Raises:
        PipelineError: On entry: this is not the main thread.
    """

    def __init__(self, drain: Callable[[], None], interrupt: Callable[[], None]) -> None:
        self._listener = _Listener(drain, interrupt)
        self._receiver: _Receiver

    def __enter__(self) -> None:
        check_main_thread()
        loop = current_loop()
        self._receiver = _receivers.setdefault(loop.token, _Receiver(loop))
        self._receiver.listeners.append(self._listener)
        _install()

    def __exit__(self, *exc_info: object) -> None:
        receiver, token = self._receiver, self._receiver.loop.token
        # What has arrived before the end of the run is for the run.
        receiver.deliver()
        receiver.listeners.remove(self._listener)
        if receiver.listeners:
            _restore_if_unused()
        else:
            if _receivers.get(token) is receiver:
                del _receivers[token]
            _restore_if_unused(receiver)


async def execute(run: Run) -> None:
    """Execute *run*: drain it at the first SIGINT or SIGTERM, cancel it at the second."""
    with handling_signals(run.drain, partial(run.cancel, EndReason.INTERRUPTED)):
        await run.execute()
