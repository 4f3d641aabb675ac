"""What the local cluster can take: `python -m tests.benchmarks.cluster`, or `make bench-cluster`.

Pods that no scheduler serves are created over HTTPS by client processes of their own, so
that only the API server is measured. Prints `name=value` lines, all from one run:

- `creates_per_s_at_0`, `creates_per_s_at_10000`: with no pod and with 10,000 present; at
  10,000 each created pod is deleted again in between, not counted. Medians of the rounds.
- `creates_at_10000_vs_0`: the one over the other.
- `server_cpu_ms_per_create`: user and system time of the server, at 0.
- `list_10000_s`, `page_500_ms`: one list of all, and one page of it.
- `rss_mb_at_0`, `rss_mb_at_10000`, `rss_mb_after_churn`: the server's memory at the start,
  with 10,000 pods, and after another 30,000 were created and deleted.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from kbroker.kube_client import KubeClient
from kbroker.local.cluster_process import LocalCluster
from kbroker.settings import KubernetesSettings

PODS = 10_000
ROUND = 1_500
ROUNDS = 3
CHURN = 30_000
CLIENTS = 2
AT_ONCE = 32


def manifest(name: str) -> dict[str, Any]:
    """A pod of about 2 KB, as tasks have them, that nobody schedules."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"dag_id": "bench", "task_id": name},
            "annotations": {f"note-{n}": "x" * 60 for n in range(12)},
        },
        "spec": {
            "schedulerName": "nobody",
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "base",
                    "image": "busybox:1.37",
                    "command": ["true"],
                    "env": [{"name": f"VARIABLE_{n}", "value": "v" * 30} for n in range(10)],
                }
            ],
        },
    }


def work(kubeconfig: str, names: list[str], step: str) -> None:
    """Create or delete these pods; runs in a process of its own."""
    asyncio.run(_work(kubeconfig, names, step))


async def _work(kubeconfig: str, names: list[str], step: str) -> None:
    kube = await KubeClient.connect(KubernetesSettings(kubeconfig=kubeconfig, pool_size=AT_ONCE))
    uids: dict[str, str] = {}

    async def create(name: str) -> None:
        uids[name] = orjson.loads(await kube.create_pod("default", manifest(name)))["metadata"][
            "uid"
        ]

    async def churn(name: str) -> None:
        await create(name)
        await kube.delete_pod("default", name, uid=uids[name], grace=0)

    async def delete(name: str) -> None:
        found = orjson.loads(await kube.get_pod("default", name))["metadata"]["uid"]
        await kube.delete_pod("default", name, uid=found, grace=0)

    carry_out = {"create": create, "churn": churn, "delete": delete}[step]
    waiting = iter(names)

    async def worker() -> None:
        for name in waiting:
            await carry_out(name)

    try:
        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    finally:
        await kube.close()


class Bench:
    """One cluster and the client processes."""

    def __init__(self, cluster: LocalCluster, pool: concurrent.futures.Executor) -> None:
        self._cluster = cluster
        self._pool = pool

    def all_of(self, step: str, names: list[str]) -> float:
        """Carry a step out for these pods; the seconds that it took."""
        began = time.perf_counter()
        kubeconfig = str(self._cluster.kubeconfig)
        parts = [names[n::CLIENTS] for n in range(CLIENTS)]
        for done in [self._pool.submit(work, kubeconfig, part, step) for part in parts]:
            done.result()
        return time.perf_counter() - began

    def creates_per_s(self, label: str) -> list[float]:
        """Rates of some rounds, each cleaned up after."""
        rates = []
        for number in range(ROUNDS):
            names = [f"{label}-{number}-{n}" for n in range(ROUND)]
            rates.append(ROUND / self.all_of("create", names))
            self.all_of("delete", names)
        return rates

    def cpu(self) -> float:
        """User and system seconds of the server."""
        fields = Path(f"/proc/{self._cluster.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Resident memory of the server."""
        pages = int(Path(f"/proc/{self._cluster.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def list_seconds(self, **query: str) -> float:
        """Seconds that one list takes."""
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        began = time.perf_counter()
        self._cluster.admin.get(f"/api/v1/namespaces/default/pods?{asked}")
        return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    figures: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(Path(folder)) as cluster,
        concurrent.futures.ProcessPoolExecutor(CLIENTS) as pool,
    ):
        bench = Bench(cluster, pool)
        bench.all_of("churn", [f"warm-{n}" for n in range(200)])
        figures["rss_mb_at_0"] = bench.rss_mb()
        before = bench.cpu()
        bench.all_of("create", cost := [f"cost-{n}" for n in range(ROUND)])
        figures["server_cpu_ms_per_create"] = 1000 * (bench.cpu() - before) / ROUND
        bench.all_of("delete", cost)
        empty = bench.creates_per_s("empty")
        bench.all_of("create", [f"present-{n}" for n in range(PODS)])
        figures["rss_mb_at_10000"] = bench.rss_mb()
        figures["list_10000_s"] = bench.list_seconds()
        figures["page_500_ms"] = 1000 * bench.list_seconds(limit="500")
        full = bench.creates_per_s("full")
        figures["creates_per_s_at_0"] = statistics.median(empty)
        figures["creates_per_s_at_10000"] = statistics.median(full)
        figures["creates_at_10000_vs_0"] = statistics.median(full) / statistics.median(empty)
        bench.all_of("churn", [f"churn-{n}" for n in range(CHURN)])
        figures["rss_mb_after_churn"] = bench.rss_mb()
    for name, value in figures.items():
        print(f"{name}={value:.4g}")


if __name__ == "__main__":
    main()
