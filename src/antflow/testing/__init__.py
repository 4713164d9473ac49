"""
Tools for those who test their own pipelines: virtual time, schedules, faults, promises.

Needs the extra "testing": ``pip install 'antflow[testing]'``.
"""

from __future__ import annotations

try:
    import trio as _trio
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "antflow.testing needs trio and hypothesis: pip install 'antflow[testing]'"
    ) from error

from ._clock import VirtualTimeLoop as VirtualTimeLoop
from ._clock import backends as backends
from ._clock import virtual_clock as virtual_clock
from ._explore import Deadlock as Deadlock
from ._explore import Exploration as Exploration
from ._explore import Livelock as Livelock
from ._explore import cancel as cancel
from ._explore import cancel_natively as cancel_natively
from ._explore import explore as explore
from ._explore import interrupt as interrupt
from ._explore import kill as kill
from ._schedule import Decision as Decision
from ._schedule import random_schedule as random_schedule
from ._schedule import schedules as schedules

del _trio

__all__ = [
    "Deadlock",
    "Decision",
    "Exploration",
    "Livelock",
    "VirtualTimeLoop",
    "backends",
    "cancel",
    "cancel_natively",
    "explore",
    "interrupt",
    "kill",
    "random_schedule",
    "schedules",
    "virtual_clock",
]
