"""How long everybody waits when the API server has asked one launcher to come back later."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.pace import pause

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
