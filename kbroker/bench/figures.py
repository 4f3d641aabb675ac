"""The figures: what each means, and what it must reach. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kbroker.bench.samples import median, spread


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        name: its name.
        unit: of its value; "" for a ratio.
        bar: what it must reach.
        most: whether the bar is the most that it may be, not the least.
        meaning: one sentence.
        by_limit: whether it is a ratio to the limit, which a slow API server flatters.
    """

    name: str
    unit: str
    bar: float
    most: bool
    meaning: str
    by_limit: bool = False

    @property
    def wanted(self) -> str:
        """The bar in words."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{'≤' if self.most else '≥'} {self.bar:g}{unit}"

    def reached_by(self, value: float) -> bool:
        """Whether a value reaches the bar."""
        return value <= self.bar if self.most else value >= self.bar


def _most(name: str, unit: str, bar: float, meaning: str) -> Figure:
    return Figure(name, unit, bar, True, meaning)


_ALL = (
    Figure(
        "launch_vs_limit",
        "",
        0.75,
        False,
        "pods/s through executor, Redis and two launcher processes, over those of two minimal "
        "client processes",
        by_limit=True,
    ),
    _most("launcher_cpu_ms", "ms", 0.60, "CPU of the launcher processes per pod created"),
    _most(
        "scheduler_cpu_ms",
        "ms",
        0.20,
        "CPU of the executor's process per task, from execute_async to its final event",
    ),
    _most("watcher_cpu_ms", "ms", 0.50, "CPU of the watcher per pod life"),
    _most(
        "heartbeat_p99_ms",
        "ms",
        50,
        "heartbeat() with all tasks in flight and 200 ms of API latency",
    ),
    _most(
        "event_latency_p99_ms",
        "ms",
        150,
        "from a status sent to the API server to the state in the event buffer",
    ),
    _most("event_latency_p50_ms", "ms", 60, "the same, the median"),
    _most("first_pod_ms", "ms", 25, "from a task submitted to an idle stack to its pod, median"),
    Figure(
        "scale_launchers",
        "",
        0.90,
        False,
        "pods/s of four launcher processes over four times that of one, at 500 ms of API latency",
    ),
    _most("server_cpu_ms", "ms", 2, "CPU of the API server per create of the minimal client"),
    Figure(
        "e2e_vs_limit",
        "",
        0.60,
        False,
        "tasks/s launched, run, reported and deleted, over those of a minimal client",
        by_limit=True,
    ),
    _most(
        "backlog_decline",
        "",
        0.10,
        "how much slower the last tasks of a long queue are launched than its first",
    ),
    _most(
        "backlog_executor_bytes",
        "B",
        2048,
        "memory of the executor per waiting task, beyond its command",
    ),
    _most("relist_10k_s", "s", 3, "from a watcher's start to the whole picture in Redis"),
    _most("relist_peak_mb", "MB", 150, "peak memory of that watcher"),
    _most("idle_redis_ops", "/s", 30, "Redis commands of the idle stack"),
)
FIGURES: Mapping[str, Figure] = {figure.name: figure for figure in _ALL}
_SERVER = "server_cpu_ms"


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of a figure.

    Attributes:
        figure: which.
        values: of the repetitions.
        median: of them.
        low: the smallest.
        high: the largest.
        reached: whether the median reaches the bar; None where that is not judged.
    """

    figure: Figure
    values: tuple[float, ...]
    median: float
    low: float
    high: float
    reached: bool | None


def judged(measured: Mapping[str, Sequence[float]]) -> dict[str, Result]:
    """Judge what was measured, in the order of the table.

    Ratios to the limit are judged only where the API server was measured too, and is as fast as
    it must be.
    """
    server = measured.get(_SERVER)
    fair = bool(server) and FIGURES[_SERVER].reached_by(median(server or ()))
    results = {}
    for name, figure in FIGURES.items():
        values = measured.get(name)
        if values:
            middle = median(values)
            reached = None if figure.by_limit and not fair else figure.reached_by(middle)
            results[name] = Result(figure, tuple(values), middle, *spread(values), reached)
    return results
