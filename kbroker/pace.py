"""How fast the launchers of one cluster may ask its API server. Pure.

Normally nothing limits them. When the API server complains (429, 503, or answers that take
ever longer), the rate drops a little below what was really achieved and grows again along a
*curve*: fast far below the rate of the last complaint, hardly at all near it, ever faster
beyond it. That is TCP's additive increase and multiplicative decrease in the form of CUBIC
(RFC 9438): it stays near the limit for most of the time, and finds a limit that has moved.
After a minute without a complaint nothing is limited again.

The state is one hash in Redis, `pace:<cluster>`, that all launchers share; times are in ms by
Redis' clock, rates in creates per second by all launchers together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

# What is taken off the achieved rate, as a part of it.
DECREASE = 0.1
# Seconds until the rate is again what it was when the API server complained.
RECOVERY = 15.0
# The same while it is still sought: the API server complained although the rate grew fast.
SEARCH = 5.0
# A complaint within this part of RECOVERY shows that the rate was too high from the start.
HASTY = 0.5
# How much faster it grows beyond that rate.
BEYOND = 4.0
# Seconds in which a rate far below that one doubles.
DOUBLING = 1.0
# Seconds without a complaint after which nothing is limited.
FORGET = 60.0
# No rate is lower: something has to find out whether the API server is well again.
LEAST = 1.0
# Removals' part of the rate while launches want all of it.
REMOVALS = 0.1

# Less than this part refused, once in a while, is no lack of capacity.
_LONE = 0.05
_LONE_INTERVAL = 10_000
# A rate so much (ms) before a complaint was still taken.
_TAKEN = 1000
# Fewer requests say nothing about a rate.
_TOO_FEW = 20
# More than this part refused: it is not the rate that is wrong.
_OUTAGE = 0.9
# Less than this part refused: the rate was only a little too high.
_CLOSE = 0.1
# A complaint so soon after a decrease (ms) may speak of what was sent before.
_TOO_SOON = 500
# The shortest time (s) over which a rate is measured, unlimited and limited.
_SHORTEST, _SHORTEST_LIMITED = 1.0, 0.5


class Lane(StrEnum):
    """What slots of the schedule are for."""

    CREATE = "create"
    REMOVE = "remove"


def pause(not_before: int, now: int) -> float:
    """Seconds to wait before the next request."""
    return max(0, not_before - now) / 1000


@dataclass(frozen=True, slots=True)
class Curve:
    """How the rate grows after a complaint.

    Attributes:
        start: the rate when it begins.
        peak: the rate at which the API server complained; infinite if that is not known.
        recovery: seconds until the peak is reached again.
        since: when it begins.
    """

    start: float
    peak: float
    recovery: float
    since: int

    def rate(self, now: int) -> float:
        """The rate at a moment; infinite when nothing is limited any more."""
        seconds = max(0.0, (now - self.since) / 1000)
        if seconds >= FORGET:
            return math.inf
        part = DECREASE * (seconds / self.recovery - 1) ** 3
        level = self.peak * (1 + (part if part < 0 else BEYOND * part))
        return min(self.start * math.exp2(seconds / DOUBLING), level)


def rate(curve: Curve | None, now: int, limit: float) -> float:
    """The rate at a moment; `limit` is the configured one, 0 for none."""
    grown = math.inf if curve is None else curve.rate(now)
    return min(grown, limit) if limit else grown


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the requests of the last few seconds.

    Attributes:
        since: when counting began.
        done: pods created or removed.
        refused: requests refused because there were too many.
    """

    since: int
    done: int
    refused: int

    @property
    def refused_part(self) -> float:
        """From 0 to 1."""
        return self.refused / max(1, self.done + self.refused)

    def achieved(self, now: int, shortest: float) -> float:
        """Pods per second, over `shortest` seconds at least."""
        return self.done / max(shortest, (now - self.since) / 1000)

    def sent(self, now: int, shortest: float) -> float:
        """The same, with those that were refused."""
        return (self.done + self.refused) / max(shortest, (now - self.since) / 1000)


def judge(
    curve: Curve | None, counts: Counts, complained: int, judged: int, now: int, limit: float
) -> Curve | None:
    """What follows from a complaint: how the rate grows from now on; None for no limit.

    Args:
        curve: how it grew until now.
        counts: of the time before the complaint.
        complained: when the first complaint came that is not judged yet.
        judged: when a complaint was judged last; 0 for never.
        now: when requests may be sent again.
        limit: the configured rate, 0 for none.
    """
    if curve is None or math.isinf(curve.rate(complained)):
        return _first(counts, complained, judged, now, limit)
    if complained - curve.since < _TOO_SOON:
        start = max(LEAST, curve.start * (1 - DECREASE))
        return Curve(start, curve.peak, curve.recovery, now)
    before = rate(curve, complained - _TAKEN, limit)
    achieved = min(before, counts.achieved(complained, _SHORTEST_LIMITED))
    # What was far from using the rate says nothing against it, nor does an outage.
    used = counts.sent(complained, _SHORTEST_LIMITED) >= before / 2
    used = used and counts.refused_part < _OUTAGE
    if used and counts.refused_part < _CLOSE:
        # While the rate grows, what was achieved lags behind it.
        achieved = (achieved + before) / 2
    sought = curve.rate(complained) > (1 + DECREASE) * before
    recovery = SEARCH if sought else RECOVERY
    if complained - curve.since < HASTY * RECOVERY * 1000:
        # A server that can take more for a while, after a rest, had taken too much.
        achieved *= 1 - DECREASE
    return _below(achieved, achieved if used else curve.peak, recovery, now)


def _first(counts: Counts, complained: int, judged: int, now: int, limit: float) -> Curve | None:
    """Until now nothing was limited, but for the configuration."""
    few = counts.done + counts.refused < _TOO_FEW
    if (few or counts.refused_part < _LONE) and complained - judged > _LONE_INTERVAL:
        return None
    most = limit or math.inf
    achieved = min(most, counts.achieved(complained, _SHORTEST))
    # What a server takes at once, after a rest, is not what it takes in the long run.
    known = complained - counts.since >= _SHORTEST * 1000 and counts.refused_part < _OUTAGE
    return _below(achieved, achieved if known else most, SEARCH, now)


def _below(achieved: float, peak: float, recovery: float, now: int) -> Curve:
    start = max(LEAST, achieved * (1 - DECREASE))
    return Curve(start, max(peak, start / (1 - DECREASE)), recovery, now)
