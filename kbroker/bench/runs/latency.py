"""From a pod's status at the API server to the state in the executor's event buffer."""

from __future__ import annotations

from kbroker.bench import observer
from kbroker.bench.bench import Bench, Measured
from kbroker.bench.helper import BenchError
from kbroker.bench.samples import percentile
from kbroker.bench.stack import DEPLOYMENT, Shape, Stack

FIGURES = ("event_latency_p50_ms", "event_latency_p99_ms")
_WITHIN = 10.0
_STATES = ("running", "success")


def measure(bench: Bench) -> Measured:
    """Change statuses at known moments.

    The moment is that at which the change was sent to the API server, so that its own time
    counts too.
    """
    sizes, folder = bench.sizes, bench.folder / "latency"
    measured = Measured()
    with (
        bench.sites.site("latency") as site,
        Stack(site, folder, Shape(), bench.pids, warm=False) as stack,
        observer.helper(site, folder, DEPLOYMENT) as cluster,
    ):
        stack.launchers.start()
        stack.until_launching()
        stack.launch("event", sizes.patched)
        stack.noted()
        behind = min(sizes.patched, int(sizes.patches_per_s))
        sent = cluster.ask("patch", behind=behind, per_s=sizes.patches_per_s)["sent"]
        wanted = {(task, state): at for task, state, at in sent}
        arrived: dict[tuple[str, str], float] = {}

        def all_arrived() -> bool:
            for task, state, at in stack.noted()["states"]:
                arrived.setdefault((task, state), at)
            return wanted.keys() <= arrived.keys()

        stack.until("all states arrive", all_arrived, _WITHIN)
        if not site.disposable:
            stack.sweep()
    waits = [1000 * (arrived[what] - at) for what, at in wanted.items()]
    if len(waits) != len(_STATES) * sizes.patched or min(waits) < 0:
        raise BenchError(f"{len(waits)} states of {sizes.patched} pods arrived")
    measured.add("event_latency_p50_ms", percentile(waits, 0.5))
    measured.add("event_latency_p99_ms", percentile(waits, 0.99))
    measured.notes["event_latency_max_ms"] = max(waits)
    measured.series["event latency"] = [
        (percentile(waits, part / 200), part / 200) for part in range(1, 201)
    ]
    return measured
