"""The processes of a soak: Redis, a cluster, launchers, watchers, schedulers, ways in between."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import yaml

from kbroker.errors import ClusterError
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.local import worker_process
from kbroker.local.cluster_process import AdminClient
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.redis_client import connect
from kbroker.soak import bad_place
from kbroker.soak.database import Database
from kbroker.soak.observer import Observer
from kbroker.soak.place import Context, GivenPlace, LocalPlace, Place
from kbroker.soak.pods import PodView
from kbroker.soak.processes import SoakProcess
from kbroker.soak.proxy import TcpProxy
from kbroker.soak.role import LauncherRole
from kbroker.soak.settings import QUICK, SCRATCH, TEMPLATE, with_scratch

SCHEDULERS = ("a", "b")
_DEPLOYMENT = "kbroker-soak"
_READY_WITHIN = 40.0
_REJECTED = re.compile(r"(\d+) writes were refused")


class SoakStack:
    """Everything that a soak breaks; `with` starts and ends it.

    Args:
        folder: logs and state.
        settings: further ones, by section.key.
        policy: whether the local cluster refuses late creates.
        kubeconfig: of another cluster than a local one.

    Attributes:
        ledger: path of the file in which the tasks' starts and ends are written down.
        counts: how often each fault happened.
        missed: how many faults met nothing.
        impossible: how many could not begin because of another one, or could not be healed.
        hits: uid of a pod that was harmed from outside → how.

    Raises:
        ClusterError: the kubeconfig cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any] | None = None,
        *,
        policy: bool = True,
        kubeconfig: Path | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.ledger = self.folder / "ledger"
        self.counts: Counter[str] = Counter()
        self.missed = self.impossible = 0
        self.hits: dict[str, str] = {}
        self._settings = {**QUICK, **(settings or {})}
        self.redis_server = EmbeddedRedis()
        self._local = kubeconfig is None
        self.place: Place = (
            LocalPlace(self.folder / "cluster", policy=policy)
            if kubeconfig is None
            else GivenPlace(kubeconfig)
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
        self._observer: Observer | None = None
        self.redis_server.start()
        self.place.start()
        self.redis = connect(self.redis_server.url, 5.0)  # past the proxy, for the soak itself
        self.redis_way = self._way("127.0.0.1", self.redis_server.port)
        context = Context.read(self.place.kubeconfig)
        self.launcher_way, launchers = self._way_in(
            "launchers", context, self.place.launcher_user()
        )
        self.watcher_way, watchers = self._way_in("watchers", context, context.user)
        self.config = self._config()
        self.keys = RedisKeys(self.config.broker.prefix)
        past_proxies = self._config(kubernetes__kubeconfig=str(self.place.kubeconfig))
        self.pods = PodView(past_proxies)
        if not self._local:
            self._observer = Observer(past_proxies, self.ledger).start()
        launching = self._config(kubernetes__kubeconfig=launchers)
        watching = self._config(kubernetes__kubeconfig=watchers)
        self.launchers = [
            self._process(f"launcher-{n}", worker_process.launcher(1, 2, 5.0), launching)
            for n in (1, 2)
        ]
        self.set_clock(0, *self.launchers)
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
        if self._observer is not None:
            self._observer.stop()
        self.place.stop()
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
        where = (str(self.ledger), str(self.folder)) if self._local else ("/dev/stdout", SCRATCH)
        module = ("kbroker.soak.scheduler", str(self.folder / f"scheduler-{name}"), *where)
        return self._process(f"scheduler-{name}", module, self.scheduler_config(name, 1))

    def scheduler_config(self, name: str, number: int) -> KubeConfig:
        """The configuration of a scheduler with the executor id of this number."""
        return self._config(core__executor_id=f"soak-{name}-{number}")

    def set_clock(self, offset: float, *launchers: SoakProcess) -> None:
        """From their next start on, these launchers' clocks are off by so many seconds."""
        for launcher in launchers:
            launcher.prefix = ("kbroker.soak.bad_place", str(offset), str(self.nameless))

    @property
    def nameless(self) -> Path:
        """While this file exists, launchers that have not yet done so cannot resolve names."""
        return self.folder / "nameless"

    @property
    def admin(self) -> AdminClient:
        """Makes the local cluster misbehave; raises ClusterError for any other."""
        return self.place.admin

    @property
    def role(self) -> LauncherRole:
        """What the launchers may do in the local cluster; raises likewise."""
        return self.place.role

    def written_down(self) -> None:
        """Wait until all that has run stands in the ledger."""
        if self._observer is not None:
            self._observer.stop()
            self._observer = None

    # Ways.

    def _way(self, host: str, port: int) -> TcpProxy:
        proxy = TcpProxy(host, port).start()
        self._proxies.append(proxy)
        return proxy

    def _way_in(self, name: str, context: Context, user: dict[str, Any]) -> tuple[TcpProxy, str]:
        """A way to the API server, and a kubeconfig that leads over it."""
        proxy = self._way(*context.address)
        path = self.folder / f"{name}.kubeconfig"
        path.touch(0o600)
        path.write_bytes(orjson.dumps(context.over(bad_place.HOST, proxy.port, user)))
        return proxy, str(path)

    def _config(self, **more: Any) -> KubeConfig:
        template = self.folder / "template.yaml"
        template.write_text(yaml.safe_dump(TEMPLATE if self._local else with_scratch(TEMPLATE)))
        values = {
            **self._settings,
            "core.deployment": _DEPLOYMENT,
            "kubernetes.namespace": self.place.namespace,
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
