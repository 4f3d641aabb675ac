"""Everything that a run needs on one machine: Redis, a cluster, launchers and a watcher."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from kbroker.cli import preflight
from kbroker.cli.deferred import DeferredSignals
from kbroker.cli.leftovers import wait_until_gone
from kbroker.errors import BrokerUnavailableError, ClusterError, KbrokerError
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.local import worker_process
from kbroker.local.child import die_with_parent
from kbroker.local.cluster_process import LocalCluster
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.naming import deployment_selector
from kbroker.redis_client import connect
from kbroker.result_stream import read_watch

log = logging.getLogger(__name__)

_READY_WITHIN = 30.0
_STOP_WITHIN = 10.0
# A worker that ends sooner than this would only end again.
_WORTH_RESTARTING = 5.0
_RESTARTS = 5
_THREADS = 2
# Redis and the workers are on this machine, and nobody waits for their hosts to return.
_NEAR = {
    "broker.redelivery_after": "5",
    "kubernetes.create_window": "10",
    "watcher.lease": "5",
}
# In a cluster on this machine, what is slow elsewhere is over in a moment.
_LOCAL_CLUSTER = {
    "kubernetes.create_window": "5",
    "watcher.check_interval": "0.5",
    "watcher.fatal_waiting_grace": "2",
}


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    module: tuple[str, ...]
    started: float
    restarts: int = 0


class Stack:
    """Child processes that all end with this one.

    Args:
        config: the configuration that the stack fills in.
        folder: logs and state.
        launchers: launcher processes.
        own_cluster: whether to start a local cluster; otherwise the configured one is used.
        deployment: whose pods are in that one already, from an earlier process of the run.
    """

    def __init__(
        self,
        config: KubeConfig,
        folder: Path,
        launchers: int,
        *,
        own_cluster: bool = True,
        deployment: str = "",
    ) -> None:
        self.folder = folder
        self._given = config
        self._launchers = launchers
        self._deployment = deployment
        self._redis = EmbeddedRedis()
        self._cluster = LocalCluster(folder / "cluster") if own_cluster else None
        self._workers: dict[str, _Worker] = {}
        self.config = config

    @property
    def logs(self) -> Path | None:
        """Folder of the tasks' logs, namespace/pod/uid/container.log; None if elsewhere."""
        return None if self._cluster is None else self._cluster.logs

    def __enter__(self) -> Stack:
        with DeferredSignals() as signals:
            try:
                self._start(signals)
            except BaseException:
                # Ctrl-C too: nothing half-started may stay behind.
                self.stop()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._cluster is None:
                self._leave_nothing(can_wait=not isinstance(error, KbrokerError))
        finally:
            with DeferredSignals():
                self.stop()

    def _start(self, signals: DeferredSignals) -> None:
        if self._cluster is None:
            verbs = {*preflight.LAUNCHER_VERBS, *preflight.WATCHER_VERBS}
            preflight.require_cluster(self._given, sorted(verbs))
        self.folder.mkdir(parents=True, exist_ok=True)
        # Whatever file or environment say: another installation's launchers and cluster
        # have no part in a local run.
        own = {"broker.url": self._redis.start().url}
        defaults = dict(_NEAR)
        signals.check()
        if self._cluster is not None:
            own["kubernetes.kubeconfig"] = str(self._cluster.start().kubeconfig)
            own["kubernetes.context"] = ""
            defaults.update(_LOCAL_CLUSTER)
        elif self._given.source("core.deployment") == "default":
            # Another installation in that cluster keeps its pods, and we see none of them.
            own["core.deployment"] = self._deployment or f"kbroker-run-{secrets.token_hex(4)}"
        signals.check()
        self.config = with_defaults(self._given, defaults, own)
        if self._cluster is not None:
            _create_namespace(self._cluster, self.config.kubernetes.namespace)
        self._add("watcher", worker_process.WATCHER)
        for number in range(1, self._launchers + 1):
            self._add(f"launcher-{number}", worker_process.launcher(1, _THREADS, _STOP_WITHIN / 2))
        self._wait_for_watcher(signals)

    def _add(self, name: str, module: tuple[str, ...]) -> None:
        self._workers[name] = _Worker(self._begin(name, module), module, time.monotonic())

    def _begin(self, name: str, module: tuple[str, ...]) -> subprocess.Popen[bytes]:
        with self._log(name).open("ab") as output:
            return subprocess.Popen(
                worker_process.command(module),
                env=worker_process.environment(self.config),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for this process alone
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - only calls prctl
            )

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _wait_for_watcher(self, signals: DeferredSignals) -> None:
        place = (self.config.kubernetes.cluster, self.config.kubernetes.namespace)
        key = RedisKeys(self.config.broker.prefix).watch(*place)
        client = connect(self._redis.url, 5.0)
        deadline = time.monotonic() + _READY_WITHIN
        try:
            while not read_watch(client, key).synced_at:
                signals.check()
                self.check()
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"the watcher is not ready after {_READY_WITHIN:g} s; "
                        f"see {self._log('watcher')}"
                    )
                time.sleep(0.02)
        finally:
            client.close()

    def check(self) -> None:
        """See that every process still runs; a worker that was killed is started again.

        Raises:
            ClusterError, BrokerUnavailableError: one has ended for good; says which, and
                what it said last.
        """
        for name, worker in self._workers.items():
            if worker.process.poll() is not None:
                self._restart(name, worker)
        if _ended(self._redis.pid):
            raise BrokerUnavailableError("the embedded Redis has ended")
        if self._cluster is not None and _ended(self._cluster.pid):
            raise ClusterError(f"the local cluster has ended; see {self._cluster.log}")

    def _restart(self, name: str, worker: _Worker) -> None:
        code = worker.process.returncode
        lived = time.monotonic() - worker.started
        if lived < _WORTH_RESTARTING or worker.restarts == _RESTARTS:
            said = self._log(name).read_text(errors="replace").strip().splitlines()
            # Its own words, where it had any, rather than what its runner made of them.
            errors = [line for line in said if "error: " in line] or said or ["it said nothing"]
            raise ClusterError(f"{name} ended with exit code {code}: {errors[-1]}")
        log.warning("%s ended with exit code %s, starting it again", name, code)
        _kill_group(worker.process)
        worker.process = self._begin(name, worker.module)
        worker.started = time.monotonic()
        worker.restarts += 1

    def _leave_nothing(self, *, can_wait: bool) -> None:
        """Wait until no pod of ours is left in a cluster that lives on without us."""
        try:
            gone = can_wait and wait_until_gone(self.config)
        except BrokerUnavailableError as error:
            log.warning("%s", error)
            gone = False
        if not gone:
            selector = deployment_selector(self.config.core.deployment)
            log.warning("pods may be left; look: kubectl get pods -l '%s'", selector)

    def stop(self) -> None:
        """End everything, in the order in which it depends on each other.

        What works for a cluster that goes with it has nothing to finish.
        """
        processes = [worker.process for worker in self._workers.values()]
        if self._cluster is None:
            _end_gently(processes)
        for process in processes:
            _kill_group(process)
            process.wait()
        self._workers.clear()
        if self._cluster is not None:
            self._cluster.stop()
        self._redis.stop()


def _end_gently(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_WITHIN
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """A killed launcher leaves its own children behind, in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _ended(pid: int | None) -> bool:
    """Whether a child of ours has ended."""
    if pid is None:
        return True
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _create_namespace(cluster: LocalCluster, namespace: str) -> None:
    found = cluster.admin.get("/api/v1/namespaces")["items"]
    if namespace not in {one["metadata"]["name"] for one in found}:
        cluster.admin.post("/api/v1/namespaces", {"metadata": {"name": namespace}})


def with_defaults(
    config: KubeConfig, defaults: dict[str, str], own: dict[str, str] | None = None
) -> KubeConfig:
    """The configuration with other defaults.

    Args:
        config: what was given explicitly in it stays.
        defaults: for what was not given.
        own: what is so, whatever was given.
    """
    values = config.values()
    given = {name: values[name] for name in values if config.source(name) != "default"}
    return KubeConfig.from_values(**{**defaults, **given, **(own or {})})
