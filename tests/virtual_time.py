"""Virtual time on both backends: a clock that jumps to the next deadline when nobody can run."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import trio.testing


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, moves the clock of its loop to it."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:  # no timer is set: only a thread or a signal can wake us
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.loop.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 0.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def virtual_backends() -> dict[str, tuple[str, dict[str, Any]]]:
    return {
        "asyncio-virtual": ("asyncio", {"loop_factory": VirtualTimeLoop}),
        "trio-virtual": ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}),
    }
