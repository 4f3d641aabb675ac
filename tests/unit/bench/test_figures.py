"""The table of figures, and how it is judged."""

from __future__ import annotations

import pytest

from kbroker.bench.figures import FIGURES, judged
from kbroker.bench.registry import AIRFLOW, FIGURES_OF, RUNS, chosen
from kbroker.errors import UsageError


def test_every_figure_is_measured_by_one_run() -> None:
    measured = [name for names in FIGURES_OF.values() for name in names]
    assert sorted(measured) == sorted(FIGURES)


@pytest.mark.parametrize(
    ("name", "value", "reached"),
    [
        ("launcher_cpu_ms", 0.60, True),
        ("launcher_cpu_ms", 0.61, False),
        ("scale_launchers", 0.90, True),
        ("scale_launchers", 0.89, False),
    ],
)
def test_a_bar_is_the_most_or_the_least(name: str, value: float, reached: bool) -> None:
    assert judged({name: [value]})[name].reached is reached


def test_the_median_is_judged() -> None:
    result = judged({"idle_redis_ops": [1.0, 100.0, 29.0]})["idle_redis_ops"]
    assert (result.median, result.low, result.high, result.reached) == (29.0, 1.0, 100.0, True)


@pytest.mark.parametrize(
    ("server", "reached"), [([0.7], True), ([2.0], True), ([2.1], None), ([], None)]
)
def test_a_slow_or_unknown_server_flatters(server: list[float], reached: bool | None) -> None:
    results = judged({"server_cpu_ms": server, "launch_vs_limit": [0.8], "e2e_vs_limit": [0.7]})
    assert results["launch_vs_limit"].reached is reached
    assert results["e2e_vs_limit"].reached is reached


def test_names_of_figures_and_runs() -> None:
    assert chosen([]) == [name for name in RUNS if name != AIRFLOW]
    assert chosen([], beside=True) == list(RUNS)
    assert chosen(["quiet"], beside=True) == ["quiet", AIRFLOW]
    assert chosen(["idle_redis_ops", "launch", "server_cpu_ms"]) == ["launch", "quiet"]
    assert "scale" not in chosen([], local=False)
    with pytest.raises(UsageError, match="no figure or run 'speed'"):
        chosen(["speed"])
    with pytest.raises(UsageError, match="needs a local cluster"):
        chosen(["scale_launchers"], local=False)
    with pytest.raises(UsageError, match="needs an interpreter that has Airflow"):
        chosen([AIRFLOW])
