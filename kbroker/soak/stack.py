"""The processes of a soak: Redis, a cluster, launchers, watchers, schedulers, ways in between."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import yaml

from kbroker.errors import ClusterError
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.local import worker_process
from kbroker.local.cluster_process import LocalCluster
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.redis_client import connect
from kbroker.soak.database import Database
from kbroker.soak.pods import PodView
from kbroker.soak.processes import SoakProcess
from kbroker.soak.proxy import TcpProxy
from kbroker.soak.role import LauncherRole

SCHEDULERS = ("a", "b")
_DEPLOYMENT = "kbroker-soak"
_READY_WITHIN = 40.0
_REJECTED = re.compile(r"(\d+) writes were refused")
# What takes minutes elsewhere is over in seconds, so that a soak meets all of it often.
_QUICK: dict[str, Any] = {
    "broker.redelivery_after": 2.0,
    "broker.socket_timeout": 2.0,
    "core.executor_lease": 3.0,
    "core.reconcile_interval": 2.0,
    "core.relaunch_limit": 2,
    "kubernetes.create_window": 5.0,
    "kubernetes.retry_budget": 3.0,
    "kubernetes.request_timeout": 2.0,
    "launcher.park_base": 0.3,
    "launcher.park_max": 2.0,
    "launcher.park_lease": 5.0,
    "launcher.drain_interval": 0.2,
    "launcher.retry_after_max": 2.0,
    "watcher.lease": 2.0,
    "watcher.watch_timeout": 20.0,
    "watcher.silent_timeout": 4.0,
    "watcher.backoff_base": 0.1,
    "watcher.backoff_max": 1.0,
    "watcher.check_interval": 0.5,
    "watcher.fatal_waiting_grace": 1.0,
    "watcher.resync_interval": 60.0,
    "watcher.orphan_after": 20.0,
}
_TEMPLATE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "spec": {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "base",
                "image": "busybox:1.37",
                "env": [
                    {
                        "name": "POD_UID",
                        "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}},
                    },
                    {
                        "name": "ATTEMPT",
                        "valueFrom": {
                            "fieldRef": {"fieldPath": "metadata.annotations['kbroker/attempt']"}
                        },
                    },
                ],
            }
        ],
    },
}


class SoakStack:
    """Everything that a soak breaks; `with` starts and ends it.

    Args:
        folder: logs and state.
        settings: further ones, by section.key.
        policy: whether the local cluster refuses late creates.

    Attributes:
        ledger: path of the file that the tasks write.
        counts: how often each fault happened, and what else is worth counting.
        hits: uid of a pod that was harmed from outside → how.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any] | None = None, *, policy: bool = True
    ) -> None:
        self.folder = folder.resolve()
        self.ledger = self.folder / "ledger"
        self.counts: Counter[str] = Counter()
        self.hits: dict[str, str] = {}
        self._settings = {**_QUICK, **(settings or {})}
        self.redis_server = EmbeddedRedis()
        self.cluster = LocalCluster(
            self.folder / "cluster",
            bookmark_interval=1.0,
            max_pods=250,
            no_create_before_policy=not policy,
        )

    # Life.

    def __enter__(self) -> SoakStack:
        with contextlib.ExitStack() as started:
            started.callback(self._stop)
            self._start()
            started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ledger.touch()
        self.processes: list[SoakProcess] = []
        self._proxies: list[TcpProxy] = []
        self.redis_server.start()
        self.cluster.start()
        self.redis = connect(self.redis_server.url, 5.0)  # past the proxy, for the soak itself
        self.redis_way = self._way("127.0.0.1", self.redis_server.port)
        self.role = LauncherRole(self.cluster.admin)
        self.launcher_way, launchers = self._way_in("launchers", self.role.token)
        self.watcher_way, watchers = self._way_in("watchers")
        self.config = self._config()
        self.keys = RedisKeys(self.config.broker.prefix)
        self.pods = PodView(self._config(kubernetes__kubeconfig=str(self.cluster.kubeconfig)))
        launching = self._config(kubernetes__kubeconfig=launchers)
        watching = self._config(kubernetes__kubeconfig=watchers)
        self.launchers = [
            self._process(f"launcher-{n}", worker_process.launcher(1, 2, 5.0), launching)
            for n in (1, 2)
        ]
        self.watchers = [
            self._process(f"watcher-{n}", worker_process.WATCHER, watching) for n in (1, 2)
        ]
        self.databases = {name: Database(self.folder / f"scheduler-{name}") for name in SCHEDULERS}
        self.schedulers = {name: self._scheduler(name) for name in SCHEDULERS}
        for process in self.processes:
            process.start()
        self._until_ready()

    def _stop(self) -> None:
        for process in self.processes:
            process.kill(again=False)
        for proxy in self._proxies:
            proxy.stop()
        self.cluster.stop()
        self.redis_server.stop()

    def _until_ready(self) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        while not (self.leader() and all(d.status() for d in self.databases.values())):
            ended = [process for process in self.processes if not process.alive]
            if ended or time.monotonic() > deadline:
                who = ended[0].name if ended else "the stack"
                raise ClusterError(f"{who} does not start; see {self.folder}/*.log")
            time.sleep(0.05)

    def _process(self, name: str, module: tuple[str, ...], config: KubeConfig) -> SoakProcess:
        process = SoakProcess(name, module, config, self.folder / f"{name}.log")
        self.processes.append(process)
        return process

    def _scheduler(self, name: str) -> SoakProcess:
        module = (
            "kbroker.soak.scheduler",
            str(self.folder / f"scheduler-{name}"),
            str(self.ledger),
        )
        return self._process(f"scheduler-{name}", module, self.scheduler_config(name, 1))

    def scheduler_config(self, name: str, number: int) -> KubeConfig:
        """The configuration of a scheduler with the executor id of this number."""
        return self._config(core__executor_id=f"soak-{name}-{number}")

    # Ways.

    def _way(self, host: str, port: int) -> TcpProxy:
        proxy = TcpProxy(host, port).start()
        self._proxies.append(proxy)
        return proxy

    def _way_in(self, name: str, token: str = "") -> tuple[TcpProxy, str]:
        """A way to the API server, and a kubeconfig that leads over it."""
        content = yaml.safe_load(self.cluster.kubeconfig.read_text())
        server = urlsplit(content["clusters"][0]["cluster"]["server"])
        proxy = self._way(str(server.hostname), server.port or 443)
        content["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
        if token:
            content["users"][0]["user"] = {"token": token}
        path = self.folder / f"{name}.kubeconfig"
        path.touch(0o600)
        path.write_bytes(orjson.dumps(content))
        return proxy, str(path)

    def _config(self, **more: Any) -> KubeConfig:
        template = self.folder / "template.yaml"
        template.write_text(yaml.safe_dump(_TEMPLATE))
        values = {
            **self._settings,
            "core.deployment": _DEPLOYMENT,
            "broker.url": f"redis://127.0.0.1:{self.redis_way.port}/0",
            "kubernetes.pod_template_file": str(template),
            **{name.replace("__", "."): value for name, value in more.items()},
        }
        return KubeConfig.from_values(**values)

    # Looking.

    def leader(self) -> str:
        """Name of the leading watcher; "" without one."""
        kubernetes = self.config.kubernetes
        found = self.redis.hget(self.keys.watch(kubernetes.cluster, kubernetes.namespace), "leader")
        return found.decode() if isinstance(found, bytes) else (found or "")

    def leading_watcher(self) -> SoakProcess:
        """The watcher that leads, as far as can be told."""
        leader = self.leader()
        for process in self.watchers:
            if leader.endswith(f"-{process.pid}"):
                return process
        return self.watchers[0]

    def keep_up(self) -> None:
        """Start again what has ended although it is wanted."""
        for process in self.processes:
            process.keep_up()

    def rejected(self) -> int:
        """Writes of watchers without the lease that were refused, by their own words."""
        said = "".join(watcher.said() for watcher in self.watchers)
        return sum(int(count) for count in _REJECTED.findall(said))

    def memory(self) -> dict[str, int]:
        """Resident memory of every process, in KB."""
        return {process.name: process.resident_kb() for process in self.processes}
