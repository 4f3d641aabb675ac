"""One run of the bench: what is measured where, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kbroker.bench.site import Sites


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        rounds: how often contenders take turns.
        launched: tasks of one round of launching.
        grown: further, smaller rounds, for how cost grows.
        lived: tasks of one round from end to end.
        patched: pods whose status changes, for the latency of events.
        patches_per_s: changes a second.
        firsts: single tasks submitted to an idle stack.
        idle: seconds of idleness.
        in_flight: tasks in flight while heartbeats are measured.
        beats_for: seconds for which they are.
        scaled: tasks for each launcher process.
        backlog: tasks queued.
        backlog_launched: of these, at the start and at the end each.
        listed: pods present when a watcher starts.
        beside: tasks of one round beside Airflow.
    """

    rounds: int = 4  # even: each contender is as often the first, and meets as full a server
    launched: int = 5000
    grown: tuple[int, ...] = (100, 1000)
    lived: int = 3000
    patched: int = 1000
    patches_per_s: float = 200.0
    firsts: int = 40
    idle: float = 15.0
    in_flight: int = 10_000
    beats_for: float = 6.0
    scaled: int = 400
    backlog: int = 100_000
    backlog_launched: int = 5000
    listed: int = 10_000
    beside: int = 1000


QUICK = Sizes(
    rounds=1,
    launched=100,
    grown=(20,),
    lived=60,
    patched=20,
    patches_per_s=50.0,
    firsts=3,
    idle=2.0,
    in_flight=200,
    beats_for=1.0,
    scaled=50,
    backlog=400,
    backlog_launched=100,
    listed=200,
    beside=20,
)


@dataclass(slots=True)
class Measured:
    """What a run measured.

    Attributes:
        figures: name → value of each repetition.
        notes: further numbers, name → value.
        series: for the picture, name → (x, y) points.
    """

    figures: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """One more repetition of a figure."""
        self.figures.setdefault(name, []).append(value)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a run needs.

    Attributes:
        sites: clusters.
        folder: for logs.
        sizes: how much is measured.
        say: told what is going on.
        pids: told the process ids.
        airflow: an interpreter that has Airflow with its Kubernetes provider; "" for none.
    """

    sites: Sites
    folder: Path
    sizes: Sizes
    say: Callable[[str], None]
    pids: Callable[[str], None]
    airflow: str = ""


Run = Callable[[Bench], Measured]
