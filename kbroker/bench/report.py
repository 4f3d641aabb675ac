"""What a run of the bench says: a table, a document for machines, a picture."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kbroker.bench.bench import Measured
from kbroker.bench.figures import FIGURES, Result, judged
from kbroker.bench.picture import Panel, Points, svg
from kbroker.bench.samples import median

_LAUNCHES = ("kbroker", "limit", "backlog, start", "backlog, end")
_CPU = " CPU"


class Report:
    """All that was measured.

    Args:
        measured: by the runs, each by its name.
        failed: why a run came to nothing, by its name.
        seconds: how long all took.
    """

    def __init__(
        self, measured: Mapping[str, Measured], failed: Mapping[str, str], seconds: float
    ) -> None:
        self.failed = dict(failed)
        self._seconds = seconds
        values = {n: v for run in measured.values() for n, v in run.figures.items()}
        self.results: dict[str, Result] = judged(values)
        self._notes = {n: v for run in measured.values() for n, v in run.notes.items()}
        self._series: dict[str, Points] = {
            name: points for run in measured.values() for name, points in run.series.items()
        }

    @property
    def reached(self) -> bool:
        """Whether all runs came to their ends, and all that was judged reached its bar."""
        return not self.failed and all(r.reached is not False for r in self.results.values())

    def lines(self) -> list[str]:
        """The table, the notes, what failed, and at the end a line `name=value` of each figure."""
        rows = [
            f"{'figure':24}{'median':>10}{'lowest':>10}{'highest':>10}  {'must be':12}{'is it?'}",
        ]
        for name, result in self.results.items():
            word = {True: "yes", False: "NO", None: "not judged"}[result.reached]
            low, high = (
                _short(v) if len(result.values) > 1 else "" for v in (result.low, result.high)
            )
            wanted = result.figure.wanted
            rows.append(
                f"{name:24}{_short(result.median):>10}{low:>10}{high:>10}  {wanted:12}{word}"
            )
        rows += ["", *(f"{name:42}{_short(value):>12}" for name, value in self._notes.items()), ""]
        rows += [f"{run}: FAILED: {why}" for run, why in self.failed.items()]
        rows += [f"{name}={_short(result.median)}" for name, result in self.results.items()]
        return rows

    def document(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            "machine": machine(),
            "seconds": round(self._seconds, 1),
            "figures": {
                name: {
                    "median": result.median,
                    "lowest": result.low,
                    "highest": result.high,
                    "values": result.values,
                    "unit": FIGURES[name].unit,
                    "bar": FIGURES[name].bar,
                    "bar_is": "most" if FIGURES[name].most else "least",
                    "reached": result.reached,
                    "meaning": FIGURES[name].meaning,
                }
                for name, result in self.results.items()
            },
            "notes": self._notes,
            "failed": self.failed,
            "series": self._series,
        }

    def picture(self) -> str:
        """Launch rate over time, latency distribution, cost against size; SVG."""
        series = self._series
        costs = {
            name.removesuffix(_CPU): _middles(points)
            for name, points in series.items()
            if name.endswith(_CPU)
        }
        latencies = {n: p for n, p in series.items() if n.startswith(("event", "heartbeat"))}
        launches = {name: series[name] for name in _LAUNCHES if name in series}
        return svg(
            [
                Panel("launch rate over time", "seconds", "pods per second", launches),
                Panel("latency distribution", "milliseconds", "part of all", latencies),
                Panel(
                    "cost against size", "tasks at once", "ms of CPU per task", costs, log_x=True
                ),
            ]
        )


def _middles(points: Points) -> Points:
    """One point for each x: the median of what was measured there."""
    values: dict[float, list[float]] = {}
    for x, y in points:
        values.setdefault(x, []).append(y)
    return [(x, median(values[x])) for x in sorted(values)]


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return platform.machine() if found is None else found[1]


def _short(value: float) -> str:
    """Three digits that matter, and all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
