"""An idle stack: what it asks of Redis, and how soon a single task has its pod."""

from __future__ import annotations

import time
from typing import Any

from kbroker.bench import observer
from kbroker.bench.bench import Bench, Measured
from kbroker.bench.helper import Helper
from kbroker.bench.samples import percentile
from kbroker.bench.stack import DEPLOYMENT, Shape, Stack

FIGURES = ("first_pod_ms", "idle_redis_ops")
_EVERY = 1.0
_CALM = 2.0
_WITHIN = 10.0
_PAUSE = 0.05


def measure(bench: Bench) -> Measured:
    """Wait, then submit one task after another."""
    sizes, folder = bench.sizes, bench.folder / "quiet"
    measured = Measured()
    with (
        bench.sites.site("quiet") as site,
        Stack(site, folder, Shape(watchers=2), bench.pids) as stack,
        observer.helper(site, folder, DEPLOYMENT) as cluster,
    ):
        stack.scheduler.ask("every", seconds=_EVERY)
        time.sleep(_CALM)
        before, began = _commands(stack), time.monotonic()
        time.sleep(sizes.idle)
        asked = _commands(stack) - before - 1  # our own question
        measured.add("idle_redis_ops", asked / (time.monotonic() - began))
        cluster.ask("watch")
        waits = []
        for number in range(sizes.firsts):
            waits.append(1000 * _first(stack, cluster, number))
            time.sleep(_PAUSE)
        measured.add("first_pod_ms", percentile(waits, 0.5))
        measured.notes["first_pod_p99_ms"] = percentile(waits, 0.99)
        if not site.disposable:
            stack.sweep()
    return measured


def _commands(stack: Stack) -> int:
    info: Any = stack.redis.info("stats")
    return int(info["total_commands_processed"])


def _first(stack: Stack, cluster: Helper, number: int) -> float:
    """Seconds from a task's submission to the pod in a watch."""
    began = stack.submit("first", 1, first=number)
    task = f"first-{number:06d}"
    seen: dict[str, float] = {}

    def there() -> bool:
        seen.update(cluster.ask("seen")["seen"])
        return task in seen

    stack.until("the pod exists", there, _WITHIN)
    return seen[task] - began
