"""How fast the launchers of one cluster may ask its API server. Pure.

The state is one hash in Redis, `pace:<cluster>`, that all launchers share: a
Retry-After heard by one of them holds for all.
"""

from __future__ import annotations


def pause(not_before: int, now: int) -> float:
    """Seconds to wait before the next request; times in ms by Redis' clock."""
    return max(0, not_before - now) / 1000


def postponed(not_before: int, now: int, retry_after: float, longest: float) -> int:
    """The new `not_before` in ms after a Retry-After, which is obeyed for `longest` s at most."""
    return max(not_before, now + int(min(retry_after, longest) * 1000))
