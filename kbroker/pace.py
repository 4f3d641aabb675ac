"""How fast the launchers of one cluster may ask its API server. Pure.

The state is one hash in Redis, `pace:<cluster>`, that all launchers share: a
Retry-After heard by one of them holds for all.
"""

from __future__ import annotations


def pause(not_before: int, now: int) -> float:
    """Seconds to wait before the next request; times in ms by Redis' clock."""
    return max(0, not_before - now) / 1000
