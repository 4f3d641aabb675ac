"""What is printed, written and drawn."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from kbroker.bench.bench import Measured
from kbroker.bench.picture import Panel, round_step, svg
from kbroker.bench.report import Report

SVG = "{http://www.w3.org/2000/svg}"


def report(**failed: str) -> Report:
    launch = Measured(
        {"launcher_cpu_ms": [0.5, 0.7, 0.55], "server_cpu_ms": [0.6]},
        {"launch_per_s": 812.3},
        {
            "kbroker": [(0.5, 800.0), (1.0, 820.0)],
            "launcher CPU": [(1000, 0.6), (100, 0.8), (1000, 0.7)],
        },
    )
    quiet = Measured({"idle_redis_ops": [45.0]})
    return Report({"launch": launch, "quiet": quiet}, failed, 12.34)


def test_the_last_lines_are_the_figures() -> None:
    lines = report().lines()
    assert lines[-3:] == ["launcher_cpu_ms=0.55", "server_cpu_ms=0.6", "idle_redis_ops=45"]
    (row,) = (line for line in lines if line.startswith("launcher_cpu_ms "))
    assert row.split() == ["launcher_cpu_ms", "0.55", "0.5", "0.7", "≤", "0.6", "ms", "yes"]
    (row,) = (line for line in lines if line.startswith("idle_redis_ops "))
    assert row.split() == ["idle_redis_ops", "45", "≤", "30", "/s", "NO"]


def test_a_failed_run_is_said_and_counts() -> None:
    failed = report(scale="4 pods exist instead of 5")
    assert "scale: FAILED: 4 pods exist instead of 5" in failed.lines()
    assert not failed.reached


def test_the_document_has_every_repetition() -> None:
    document = report().document()
    figure = document["figures"]["launcher_cpu_ms"]
    assert figure["values"] == (0.5, 0.7, 0.55)
    assert (figure["bar"], figure["bar_is"], figure["reached"]) == (0.6, "most", True)
    assert document["notes"] == {"launch_per_s": 812.3}
    assert document["machine"]["cores"] >= 1


def test_the_picture_has_a_line_for_each_series() -> None:
    picture = ElementTree.fromstring(report().picture())
    assert len(picture.findall(f"{SVG}g")) == 2  # no latency was measured
    lines = picture.findall(f".//{SVG}polyline")
    assert len(lines) == 2
    for line in lines:
        x = [float(point.partition(",")[0]) for point in line.attrib["points"].split()]
        assert x == sorted(set(x))
    assert {"kbroker", "launcher"} <= {text.text for text in picture.iter(f"{SVG}text")}


def test_larger_values_stand_higher_and_further_right() -> None:
    points = [(1.0, 1.0), (10.0, 2.0), (100.0, 3.0)]
    drawn = ElementTree.fromstring(svg([Panel("a & b", "x", "y", {"<s>": points}, log_x=True)]))
    (line,) = drawn.iter(f"{SVG}polyline")
    pairs = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert pairs[1][0] - pairs[0][0] == pytest.approx(pairs[2][0] - pairs[1][0], abs=0.2)
    assert pairs[0][1] > pairs[1][1] > pairs[2][1]


@pytest.mark.parametrize(
    ("least", "step"), [(0, 1), (0.9, 1), (1.1, 2), (3, 5), (7, 10), (0.03, 0.05), (250, 500)]
)
def test_ticks_are_round(least: float, step: float) -> None:
    assert round_step(least) == pytest.approx(step)


def test_no_series_no_panel() -> None:
    assert ElementTree.fromstring(svg([])).find(f"{SVG}g") is None
