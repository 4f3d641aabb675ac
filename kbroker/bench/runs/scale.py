"""Whether launcher processes add up when the API server's latency, not its work, is the limit."""

from __future__ import annotations

from kbroker.bench.bench import Bench, Measured
from kbroker.bench.stack import Shape, Stack

FIGURES = ("scale_launchers",)
_LATENCY = 500.0
_AT_ONCE = 25
_PROCESSES = (1, 4)
_WITHIN = 120.0


def measure(bench: Bench) -> Measured:
    """One process, then four.

    Judged against the line through what one process reaches or, where that is more, through what
    latency and requests in flight allow it.
    """
    measured = Measured()
    each: dict[int, float] = {}
    for processes in _PROCESSES:
        each[processes] = _pods_per_s(bench, processes)
        measured.notes[f"pods_per_s_by_{processes}_launchers"] = each[processes]
        bench.say(f"scale: {processes} launcher processes: {each[processes]:.0f} pods/s")
    one, several = _PROCESSES
    line = max(each[one], _AT_ONCE / _LATENCY * 1000)
    measured.add("scale_launchers", each[several] / (several / one * line))
    measured.series["launchers"] = [(float(count), per_s) for count, per_s in each.items()]
    return measured


def _pods_per_s(bench: Bench, processes: int) -> float:
    count = bench.sizes.scaled * processes
    # The pool is what limits the requests in flight; there are batches enough to fill it.
    shape = Shape(launchers=processes, settings={"kubernetes.pool_size": _AT_ONCE})
    name = f"scale-{processes}"
    with (
        bench.sites.site(name) as site,
        Stack(site, bench.folder / name, shape, bench.pids) as stack,
    ):
        site.slow_down(_LATENCY)
        seen = stack.launch("scale", count, _WITHIN)
        site.slow_down(0.0)
        stack.check("scale", count)
    return count / (seen[-1][0] - seen[0][0])
