"""How fast all launchers together may ask: the curve, what a complaint changes, latency."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.latency import Latency
from kbroker.pace import (
    DECREASE,
    FORGET,
    LEAST,
    RECOVERY,
    SEARCH,
    Counts,
    Curve,
    judge,
    pause,
    rate,
)

NOW = 1_800_000_000_000  # ms


@pytest.mark.parametrize(
    ("not_before", "seconds"),
    [(0, 0.0), (NOW - 5000, 0.0), (NOW, 0.0), (NOW + 1, 0.001), (NOW + 2500, 2.5)],
)
def test_pause(not_before: int, seconds: float) -> None:
    assert pause(not_before, NOW) == seconds


@given(st.integers(0, 2**45), st.integers(0, 2**45), st.integers(0, 10**6))
def test_a_pause_only_gets_shorter_as_time_passes(not_before: int, now: int, passed: int) -> None:
    assert 0 <= pause(not_before, now + passed) <= pause(not_before, now)
    assert pause(not_before, max(now, not_before)) == 0


# The curve.

KNOWN = Curve(90.0, 100.0, 15.0, NOW)
UNKNOWN = Curve(10.0, math.inf, 5.0, NOW)


@pytest.mark.parametrize(
    ("curve", "seconds", "expected"),
    [
        (KNOWN, -1, 90.0),
        (KNOWN, 0, 90.0),
        (KNOWN, 7.5, 98.75),
        (KNOWN, 15, 100.0),
        (KNOWN, 22.5, 105.0),
        (KNOWN, 30, 140.0),
        (KNOWN, 59, 1108.9),
        (KNOWN, 60, math.inf),
        (UNKNOWN, 0, 10.0),
        (UNKNOWN, 1, 20.0),
        (UNKNOWN, 5, 320.0),
        (Curve(1.0, 100.0, 15.0, NOW), 3, 8.0),  # after an outage: doubled up to the peak
        (Curve(1.0, 100.0, 15.0, NOW), 15, 100.0),
    ],
)
def test_the_rate_grows_along_a_curve(curve: Curve, seconds: float, expected: float) -> None:
    assert curve.rate(NOW + int(seconds * 1000)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("curve", "limit", "expected"),
    [(None, 0.0, math.inf), (None, 50.0, 50.0), (KNOWN, 0.0, 90.0), (KNOWN, 50.0, 50.0)],
)
def test_the_configured_limit(curve: Curve | None, limit: float, expected: float) -> None:
    assert rate(curve, NOW, limit) == expected


rates = st.floats(LEAST, 5000.0)


@given(rates, st.floats(1.0, 100.0), st.floats(0, 100), st.floats(0, 100))
def test_the_rate_never_falls_without_a_complaint(
    start: float, more: float, at: float, later: float
) -> None:
    curve = Curve(start, start / (1 - DECREASE) * more, RECOVERY, NOW)
    first = curve.rate(NOW + int(at * 1000))
    rounding = 1 + 1e-9
    assert start <= first * rounding
    assert first <= curve.rate(NOW + int((at + later) * 1000)) * rounding


# Complaints.


def judged(
    curve: Curve | None,
    done: int,
    refused: int,
    *,
    seconds: float = 2.0,
    after: float = 20.0,
    before: int = 0,
    limit: float = 0.0,
) -> Curve | None:
    """A complaint `after` seconds on the curve; counted for `seconds` before it."""
    complained = NOW + int(after * 1000)
    counts = Counts(complained - int(seconds * 1000), done, refused)
    return judge(curve, counts, complained, before, complained + 1000, limit)


FIRST = [
    # done, refused, seconds, judged before, start, peak
    ("a steady flow", 400, 40, 2.0, 0, 180.0, 200.0),
    ("what a rest allows", 100, 40, 0.2, 0, 90.0, math.inf),
    ("an outage", 3, 200, 2.0, 0, 1.35, math.inf),
    ("one of many", 400, 1, 2.0, 0, None, None),
    ("one of few", 3, 1, 2.0, 0, None, None),
    ("one of few, again", 3, 1, 2.0, NOW + 15_000, 1.35, 1.5),
    ("one of many, long ago", 400, 1, 2.0, NOW - 15_000, None, None),
]


@pytest.mark.parametrize(
    ("done", "refused", "seconds", "before", "start", "peak"),
    [row[1:] for row in FIRST],
    ids=[row[0] for row in FIRST],
)
def test_the_first_complaint(
    done: int,
    refused: int,
    seconds: float,
    before: int,
    start: float | None,
    peak: float | None,
) -> None:
    curve = judged(None, done, refused, seconds=seconds, before=before)
    if start is None:
        assert curve is None
    else:
        assert curve == Curve(pytest.approx(start), pytest.approx(peak), SEARCH, NOW + 21_000)


def test_after_a_minute_it_is_the_first_again() -> None:
    assert judged(KNOWN, 400, 1, after=FORGET + 1) is None
    assert judged(KNOWN, 400, 40, after=FORGET + 1) == judged(None, 400, 40, after=FORGET + 1)


NEXT = [
    # done in two seconds, after, start, peak, recovery; the rate of KNOWN at 20 s is 102
    ("all of it was used", 204, 20.0, 91.2, 101.3, RECOVERY),
    ("nearly all", 184, 20.0, 87.0, 96.7, RECOVERY),
    ("a part of it, much was refused", 140, 20.0, 63.0, 70.0, RECOVERY),
    ("others ask, too", 40, 20.0, 18.0, 100.0, RECOVERY),
    ("nothing works", 0, 20.0, LEAST, 100.0, RECOVERY),
    ("soon again", 190, 5.0, 76.6, 85.1, RECOVERY),
    ("at once", 30, 0.3, 81.0, 100.0, RECOVERY),
    ("far beyond it", 800, 40.0, 237.5, 263.8, RECOVERY),
]


@pytest.mark.parametrize(
    ("done", "after", "start", "peak", "recovery"),
    [row[1:] for row in NEXT],
    ids=[row[0] for row in NEXT],
)
def test_the_next_complaint(
    done: int, after: float, start: float, peak: float, recovery: float
) -> None:
    curve = judged(KNOWN, done, 40 if done == 140 else 5, after=after)
    assert curve is not None
    assert curve.start == pytest.approx(start, rel=0.02)
    assert curve.peak == pytest.approx(peak, rel=0.02)
    assert curve.recovery == recovery


def test_while_it_is_doubled_the_rate_of_a_second_ago_counts() -> None:
    curve = judged(UNKNOWN, 300, 5, after=5.0)
    assert curve is not None
    assert curve.recovery == SEARCH
    assert 0.6 * 160 < curve.start < curve.peak <= 160


@given(rates, rates, st.integers(0, 10_000), st.floats(0.0, 59.0), st.floats(0.1, 5.0))
def test_a_complaint_never_raises_the_rate(
    start: float, peak: float, done: int, after: float, seconds: float
) -> None:
    curve = Curve(start, max(peak, start / (1 - DECREASE)), RECOVERY, NOW)
    at = NOW + int(after * 1000)
    next_curve = judged(curve, done, 5, after=after, seconds=seconds)
    assert next_curve is not None
    assert LEAST <= next_curve.start <= max(LEAST, curve.rate(at)) * 1.0001
    assert next_curve.peak <= max(curve.peak, curve.rate(at), LEAST / (1 - DECREASE)) * 1.0001


@given(st.integers(20, 10_000), st.floats(10, 500))
def test_no_rate_exceeds_the_configured_limit(done: int, limit: float) -> None:
    curve = judged(None, done, done, limit=limit)
    assert curve is not None
    assert curve.start <= limit
    assert rate(curve, NOW + 10**6, limit) == limit


# Latency.


def complaints(*phases: tuple[float, float], per_second: int = 50) -> list[int]:
    """Seconds in which the latency was one too many; each phase: (seconds, latency)."""
    latency, found, now = Latency(), [], 0.0
    for seconds, took in phases:
        for _ in range(int(seconds * per_second)):
            now += 1 / per_second
            if latency.rises(took, now):
                found.append(int(now))
    return found


def test_an_api_server_that_gets_slow_is_noticed_and_another_usual_is_learnt() -> None:
    found = complaints((20, 0.05), (60, 2.0))
    assert 22 <= found[0] <= 25
    assert 3 <= len(found) <= 10  # what stays becomes usual


@pytest.mark.parametrize(
    "phases",
    [
        ((60, 0.5),),  # far away
        ((60, 1.5),),  # slow, but always
        ((20, 0.01), (60, 0.8)),  # far slower, and within the objective
        ((20, 0.6), (60, 1.5)),  # beyond the objective, and not far from usual
        ((20, 0.05), (2, 5.0), (60, 0.05)),  # a hiccup
    ],
)
def test_latency_that_is_no_complaint(phases: tuple[tuple[float, float], ...]) -> None:
    assert complaints(*phases) == []


def test_few_answers_say_nothing() -> None:
    assert complaints((60, 0.05), (60, 9.0), per_second=1) == []
