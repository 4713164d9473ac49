"""
Tools for those who test their own pipelines.

Needs the extra "testing": ``pip install 'antflow[testing]'``.
"""

from __future__ import annotations

from ._entries import Ended as Ended
from ._entries import Opened as Opened
from ._entries import Read as Read
from ._entries import Taken as Taken
from ._log import EventLog as EventLog
from ._promises import assert_promises as assert_promises
from ._strategies import AsyncSource as AsyncSource
from ._strategies import DrawnTask as DrawnTask
from ._strategies import GeneratorSource as GeneratorSource
from ._strategies import pipelines as pipelines
from ._strategies import sources as sources
from ._strategies import stages as stages
from ._tasks import failing as failing
from ._tasks import flaky as flaky
from ._tasks import slow as slow

__all__ = [
    "AsyncSource",
    "DrawnTask",
    "Ended",
    "EventLog",
    "GeneratorSource",
    "Opened",
    "Read",
    "Taken",
    "assert_promises",
    "failing",
    "flaky",
    "pipelines",
    "slow",
    "sources",
    "stages",
]

# Users see `antflow.testing.flaky`, not the room it was built in.
for _public in [globals()[name] for name in __all__]:
    _public.__module__ = __name__
