"""Statistics of repeated measurements."""

from __future__ import annotations

import pytest

from kbroker.bench.samples import median, per_second, percentile, rate, spread


def test_median_and_spread() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([1.0, 2.0]) == 1.5
    assert spread([3.0, 1.0, 2.0]) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("part", "expected"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.99, 99), (1.0, 100)]
)
def test_percentile_is_one_of_the_values(part: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), part) == expected


@pytest.mark.parametrize("of", [lambda: median([]), lambda: percentile([], 0.5)])
def test_nothing_has_no_middle(of: object) -> None:
    with pytest.raises(ValueError, match="of nothing"):
        of()  # type: ignore[operator]


def test_rate_between_two_counts() -> None:
    counts = [(10.0, 0), (11.0, 50), (12.0, 100), (14.0, 300)]
    assert rate(counts, 0, 300) == 75.0
    assert rate(counts, 60, 250) == pytest.approx(250 / 3)  # from 50 at 11 s to 300 at 14 s
    assert rate([(1.0, 0), (1.5, 100)], 10, 100) == 200.0  # all of it between two samples


@pytest.mark.parametrize("counts", [[], [(1.0, 0), (2.0, 9)], [(1.0, 10)], [(1.0, 5), (2.0, 20)]])
def test_no_rate_without_growth(counts: list[tuple[float, int]]) -> None:
    with pytest.raises(ValueError, match="did not grow"):
        rate(counts, 0, 10)


def test_rates_over_time() -> None:
    counts = [(5.0 + n / 10, 10 * n) for n in range(11)]
    rates = per_second(counts, 0.5)
    assert [round(at, 3) for at, _ in rates] == [0.5, 1.0]
    assert [round(value) for _, value in rates] == [100, 100]
    assert per_second([], 0.5) == []
