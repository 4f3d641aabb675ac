"""A watcher that starts while many pods are present, and Redis knows none of them."""

from __future__ import annotations

import time

from kbroker.bench.bench import Bench, Measured
from kbroker.bench.cpu import peak_bytes
from kbroker.bench.limit import Limit
from kbroker.bench.stack import DEPLOYMENT, Shape, Stack

FIGURES = ("relist_10k_s", "relist_peak_mb")
_WITHIN = 60.0
_TIMES = 2


def measure(bench: Bench) -> Measured:
    """Start a watcher again and again: from its start to the whole picture in Redis."""
    count, folder = bench.sizes.listed, bench.folder / "relist"
    measured = Measured()
    with (
        bench.sites.site("relist") as site,
        Stack(site, folder, Shape(), bench.pids, warm=False) as stack,
        Limit(site, folder, deployment=DEPLOYMENT) as creators,
    ):
        watcher = stack.watchers[0]
        watcher.stop()
        creators.prepare("listed", count)
        creators.carry_out("create", count)
        for _ in range(min(bench.sizes.rounds, _TIMES)):
            stack.redis.delete(*stack.picture)
            began = time.monotonic()
            watcher.start()
            stack.until("the picture is whole", stack.watched, _WITHIN)
            measured.add("relist_10k_s", time.monotonic() - began)
            measured.add("relist_peak_mb", peak_bytes(watcher.pid) / 1e6)
            stack.expect(count)
            watcher.stop()
        if not site.disposable:
            stack.sweep()
    return measured
