"""What is said about repeated measurements. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def median(values: Sequence[float]) -> float:
    """The middle one.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("a median of nothing")
    return statistics.median(values)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest."""
    return min(values), max(values)


def percentile(values: Sequence[float], part: float) -> float:
    """The value that this part of them does not exceed (nearest rank).

    Args:
        values: in any order.
        part: from 0 to 1.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("a percentile of nothing")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def rate(counts: Sequence[tuple[float, int]], lowest: int, highest: int) -> float:
    """How fast a growing count passed from one value to another, per second.

    Args:
        counts: (seconds, count), in order.
        lowest: where to begin: at the last count that is not above it.
        highest: where to end: at the first count that is not below it.

    Raises:
        ValueError: it never came so far, or took no time.
    """
    began = next(((at, count) for at, count in reversed(counts) if count <= lowest), None)
    ended = next(((at, count) for at, count in counts if count >= highest), None)
    if began is None or ended is None or ended[0] <= began[0]:
        raise ValueError(f"a count did not grow from {lowest} to {highest}")
    return (ended[1] - began[1]) / (ended[0] - began[0])


def per_second(counts: Sequence[tuple[float, int]], step: float) -> list[tuple[float, float]]:
    """The rates between equidistant moments: (seconds since the first count, per second)."""
    if not counts:
        return []
    first = counts[0][0]
    rates: list[tuple[float, float]] = []
    since, before = counts[0]
    for at, count in counts[1:]:
        if at - since >= step:
            rates.append((at - first, (count - before) / (at - since)))
            since, before = at, count
    return rates
