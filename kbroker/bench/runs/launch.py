"""How fast pods are created, and what that costs: kbroker and the limit take turns."""

from __future__ import annotations

from kbroker.bench.bench import Bench, Measured
from kbroker.bench.cpu import cpu_seconds
from kbroker.bench.limit import Limit
from kbroker.bench.samples import median, per_second
from kbroker.bench.stack import Shape, Stack

FIGURES = ("launch_vs_limit", "launcher_cpu_ms", "server_cpu_ms")
_STEP = 0.5
# So small rounds cost less than the clock of /proc can tell: several of them are added up.
_LEAST = 500


def measure(bench: Bench) -> Measured:
    """Launch in turns."""
    sizes, folder = bench.sizes, bench.folder / "launch"
    measured = Measured()
    with (
        bench.sites.site("launch") as site,
        Stack(site, folder, Shape(), bench.pids) as stack,
        Limit(site, folder) as limit,
    ):
        measured.notes["pod_bytes"] = limit.prepare("limit-warm", 200)
        limit.carry_out("create", 200)
        for size in sizes.grown:
            _grow(stack, measured, size)
        rates: dict[str, list[float]] = {"kbroker": [], "limit": []}
        for number in range(sizes.rounds):
            # By turns, so that neither always meets the fuller server.
            for who in ("limit", "kbroker") if number % 2 == 0 else ("kbroker", "limit"):
                if who == "limit":
                    rate = _limit(limit, site.server, measured, number, sizes.launched)
                else:
                    rate = _kbroker(stack, measured, number, sizes.launched)
                rates[who].append(rate)
                bench.say(f"launch: {who}: {rate:.0f} pods/s")
            measured.add("launch_vs_limit", rates["kbroker"][-1] / rates["limit"][-1])
        if not site.disposable:
            limit.sweep()
            stack.sweep()
    measured.notes["launch_per_s"] = median(rates["kbroker"])
    measured.notes["limit_per_s"] = median(rates["limit"])
    return measured


def _limit(limit: Limit, server: int | None, measured: Measured, number: int, count: int) -> float:
    limit.prepare(f"limit-{number}", count)
    clients = cpu_seconds(*limit.pids)
    before = 0.0 if server is None else cpu_seconds(server)
    done = limit.carry_out("create", count)
    if server is not None:
        measured.add("server_cpu_ms", 1000 * (cpu_seconds(server) - before) / count)
    measured.notes["limit_client_cpu_ms"] = 1000 * (cpu_seconds(*limit.pids) - clients) / count
    measured.series["limit"] = per_second(done, _STEP)
    return count / (done[-1][0] - done[0][0])


def _kbroker(stack: Stack, measured: Measured, number: int, count: int) -> float:
    before = stack.cpu()
    seen = stack.launch(f"launch-{number}", count)
    spent = {role: 1000 * (now - before[role]) / count for role, now in stack.cpu().items()}
    stack.noted()
    stack.check(f"launch-{number}", count)
    measured.add("launcher_cpu_ms", spent["launcher"])
    for role, cost in spent.items():
        measured.notes[f"launch_{role}_ms"] = cost
        measured.series.setdefault(f"{role} CPU", []).append((count, cost))
    measured.series["kbroker"] = per_second(seen, _STEP)
    return count / (seen[-1][0] - seen[0][0])


def _grow(stack: Stack, measured: Measured, size: int) -> None:
    """What each pod costs when so many are launched at once."""
    times = max(1, _LEAST // size)
    before = stack.cpu()
    for number in range(times):
        stack.launch(f"grow-{size}-{number}", size)
    count = times * size
    for role, now in stack.cpu().items():
        cost = 1000 * (now - before[role]) / count
        measured.series.setdefault(f"{role} CPU", []).append((size, cost))
