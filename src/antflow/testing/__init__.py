"""
Tools for testing your own pipelines: virtual time, schedules, injected failures and promises.

It needs the extra ``testing``. In a clone of antflow: ``pip install -e '.[testing]'``.
"""

from __future__ import annotations

try:
    # Half of the kit controls trio, so a missing trio is reported at once.
    import trio as _trio
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "antflow.testing needs trio and hypothesis. In a clone of antflow, run: "
        "pip install -e '.[testing]'"
    ) from error

from ._exploration.clock import VirtualTimeLoop as VirtualTimeLoop
from ._exploration.clock import backends as backends
from ._exploration.clock import virtual_clock as virtual_clock
from ._exploration.explore import Deadlock as Deadlock
from ._exploration.explore import Exploration as Exploration
from ._exploration.explore import Livelock as Livelock
from ._exploration.explore import cancel as cancel
from ._exploration.explore import cancel_natively as cancel_natively
from ._exploration.explore import explore as explore
from ._exploration.explore import interrupt as interrupt
from ._exploration.explore import kill as kill
from ._exploration.schedule import Decision as Decision
from ._exploration.schedule import random_schedule as random_schedule
from ._exploration.schedule import schedules as schedules
from ._promises.check import assert_promises as assert_promises
from ._promises.entries import Ended as Ended
from ._promises.entries import Opened as Opened
from ._promises.entries import Read as Read
from ._promises.entries import Taken as Taken
from ._promises.event_log import EventLog as EventLog
from ._strategies import AsyncSource as AsyncSource
from ._strategies import DrawnTask as DrawnTask
from ._strategies import GeneratorSource as GeneratorSource
from ._strategies import pipelines as pipelines
from ._strategies import sources as sources
from ._strategies import stages as stages
from ._tasks import failing as failing
from ._tasks import flaky as flaky
from ._tasks import slow as slow

del _trio

__all__ = [
    "AsyncSource",
    "Deadlock",
    "Decision",
    "DrawnTask",
    "Ended",
    "EventLog",
    "Exploration",
    "GeneratorSource",
    "Livelock",
    "Opened",
    "Read",
    "Taken",
    "VirtualTimeLoop",
    "assert_promises",
    "backends",
    "cancel",
    "cancel_natively",
    "explore",
    "failing",
    "flaky",
    "interrupt",
    "kill",
    "pipelines",
    "random_schedule",
    "schedules",
    "slow",
    "sources",
    "stages",
    "virtual_clock",
]

# In messages and in the documentation a name is `antflow.testing.flaky`, without private modules.
for _public in [globals()[name] for name in __all__]:
    _public.__module__ = __name__
