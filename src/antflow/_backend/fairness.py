"""After how many items a loop task that never waits yields to the event loop."""

from __future__ import annotations

# The workers of a pool yield once per this many items, and so do a feeder and a stream. A yield
# costs as much as one or two items. Tasks that never await delay everything else for this many.
ITEMS_PER_YIELD = 256

# For each item, whether a worker yields before it. An iterator over this list, shared by the
# workers of a pool, costs less than a counter, which took 4 % of a run with a thousand workers.
YIELD_POINTS = [False] * (ITEMS_PER_YIELD - 1) + [True]
