"""Tasks launched, run, reported and deleted: kbroker and the shortest way take turns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kbroker.bench import observer
from kbroker.bench.bench import Bench, Measured
from kbroker.bench.helper import BenchError
from kbroker.bench.limit import DEPLOYMENTS, Limit
from kbroker.bench.samples import median
from kbroker.bench.site import Site
from kbroker.bench.stack import DEPLOYMENT, Shape, Stack

FIGURES = ("e2e_vs_limit", "scheduler_cpu_ms", "watcher_cpu_ms")
# For both: so that deletions, which wait for it, fall into the run.
_WINDOW = {"kubernetes.create_window": 5.0}
_RUNS_FOR = 0.5
_WITHIN = 180.0
_TIMES = 2
_ROLES = ("launcher", "scheduler", "watcher", "redis", "server")


def measure(bench: Bench) -> Measured:
    """Live in turns."""
    sizes, folder = bench.sizes, bench.folder / "end_to_end"
    measured = Measured()
    shape = Shape(run=True, settings=_WINDOW)
    rates: dict[str, list[float]] = {"kbroker": [], "limit": []}
    with (
        bench.sites.site("end_to_end", _RUNS_FOR) as site,
        _playing(site, folder),
        Stack(site, folder, shape, bench.pids) as stack,
        Limit(site, folder, run=True, settings=_WINDOW) as limit,
    ):
        stack.until_over()
        for number in range(min(sizes.rounds, _TIMES)):
            for who in ("limit", "kbroker") if number % 2 == 0 else ("kbroker", "limit"):
                if who == "limit":
                    limit.prepare(f"live-{number}", sizes.lived)
                    done = limit.carry_out("live", sizes.lived)
                    rate = sizes.lived / (done[-1][0] - done[0][0])
                else:
                    rate = _kbroker(stack, measured, f"live-{number}", sizes.lived)
                rates[who].append(rate)
                bench.say(f"end to end: {who}: {rate:.0f} tasks/s")
            measured.add("e2e_vs_limit", rates["kbroker"][-1] / rates["limit"][-1])
    measured.notes["e2e_per_s"] = median(rates["kbroker"])
    measured.notes["e2e_limit_per_s"] = median(rates["limit"])
    return measured


@contextlib.contextmanager
def _playing(site: Site, folder: Path) -> Iterator[None]:
    """Play the pods' lives over the API where the cluster does not."""
    if site.plays:
        yield
        return
    with observer.helper(site, folder, DEPLOYMENT, *DEPLOYMENTS) as cluster:
        cluster.ask("play", seconds=_RUNS_FOR)
        yield


def _kbroker(stack: Stack, measured: Measured, group: str, count: int) -> float:
    """Run so many tasks to their ends; how many a second."""
    stack.prepare(group, count)
    before, memory = stack.cpu(), stack.used_memory()
    began = stack.submit_prepared()
    ended = stack.until_over(within=_WITHIN)
    spent = {role: 1000 * (now - before[role]) / count for role, now in stack.cpu().items()}
    _check(stack.noted(), group, count)
    stack.check(group, 0)
    measured.add("scheduler_cpu_ms", spent["scheduler"])
    measured.add("watcher_cpu_ms", spent["watcher"])
    # The records of finished launches, kept for `broker.record_ttl`.
    measured.notes["e2e_redis_bytes_kept"] = (stack.used_memory() - memory) / count
    for role in _ROLES:
        if role in spent:
            measured.notes[f"e2e_{role}_ms"] = spent[role]
    return count / (ended - began)


def _check(noted: dict[str, Any], group: str, count: int) -> None:
    """Every task ran and succeeded, once each.

    Raises:
        BenchError: that is not so.
    """
    ends = [task for task, state, _ in noted["states"] if state == "success"]
    mine = {task for task in ends if task.startswith(f"{group}-")}
    if len(mine) != count or len(ends) != len(set(ends)):
        raise BenchError(f"{len(mine)} of {count} tasks succeeded")
