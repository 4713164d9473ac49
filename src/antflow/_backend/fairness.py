"""How long loop tasks that never wait may run before they yield to the event loop."""

from __future__ import annotations

# A worker yields after so many items from one queue, and so do a feeder and a stream. A yield costs
# as much as an item or two; tasks that never await delay everything else for so many items.
ITEMS_PER_TURN = 256

# For each item, whether a worker yields before it. An iterator over this, shared by the workers of
# a pool, costs less than a count: that was 4 % of a thousand workers.
YIELD_POINTS = [False] * (ITEMS_PER_TURN - 1) + [True]
