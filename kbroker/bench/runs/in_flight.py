"""How long a heartbeat takes with many tasks in flight, whatever the API server takes."""

from __future__ import annotations

import time

from kbroker.bench.bench import Bench, Measured, Sizes
from kbroker.bench.helper import BenchError
from kbroker.bench.samples import percentile
from kbroker.bench.stack import Shape, Stack

FIGURES = ("heartbeat_p99_ms",)
_SLOW = 200.0
_WITHIN = 60.0


def measure(bench: Bench) -> Measured:
    """Beat while launchers create the pods, with latency and without.

    The heartbeats that publish the tasks are told apart: they do what `core.publish_batch` says.
    The launchers wait meanwhile, so that there is work for them in both parts.
    """
    sizes = bench.sizes
    measured = Measured()
    with (
        bench.sites.site("in_flight") as site,
        Stack(site, bench.folder / "in_flight", Shape(), bench.pids) as stack,
    ):
        stack.launchers.pause()
        measured.notes["heartbeat_publishing_max_ms"] = _publish(stack, sizes.in_flight)
        # The bar is for the slow server; the fast one shows whether that matters.
        parts = ((_SLOW, 0.5), (0.0, 0.0)) if bench.sites.local else ((0.0, 0.0),)
        for latency, left in parts:
            site.slow_down(latency)
            before, began = stack.pods(), time.monotonic()
            beats = _beats(stack, sizes, int(left * sizes.in_flight))
            seconds = time.monotonic() - began
            p99 = percentile(beats, 0.99)
            measured.figures.setdefault("heartbeat_p99_ms", [p99])
            measured.notes[f"heartbeat_p99_ms_at_{latency:.0f}"] = p99
            measured.notes[f"pods_per_s_at_{latency:.0f}"] = (stack.pods() - before) / seconds
            measured.series[f"heartbeat at {latency:.0f} ms"] = [
                (percentile(beats, part / 200), part / 200) for part in range(1, 201)
            ]
        if not site.disposable:
            stack.sweep()
    return measured


def _publish(stack: Stack, count: int) -> float:
    """Have so many tasks published; the longest heartbeat, in ms."""
    stack.noted()
    stack.submit("flight", count)
    beats: list[float] = []

    def all_published() -> bool:
        noted = stack.noted()
        beats.extend(noted["beats"])
        return not noted["queued"]

    stack.until("all are published", all_published, _WITHIN)
    return 1000 * max(beats)


def _beats(stack: Stack, sizes: Sizes, left: int) -> list[float]:
    """Let the launchers work for a while, or until so few launches are left; heartbeats in ms.

    Raises:
        BenchError: the tasks do not all stay in flight.
    """
    stack.noted()
    ends = time.monotonic() + sizes.beats_for
    stack.launchers.go_on()
    stack.until(
        "the time is over",
        lambda: time.monotonic() >= ends or stack.queued() <= left,
        _WITHIN,
    )
    beats: list[float] = []

    def beaten() -> bool:
        noted = stack.noted()
        if noted["running"] < sizes.in_flight:
            raise BenchError(f"{noted['running']} of {sizes.in_flight} tasks are in flight")
        beats.extend(noted["beats"])
        return bool(beats)

    # What is left of a small run may be launched between two of them.
    stack.until("a heartbeat has been measured", beaten, _WITHIN)
    stack.launchers.pause()
    return [1000 * seconds for seconds in beats]
