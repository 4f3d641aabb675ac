"""Everything that a run needs on one machine: Redis, a cluster, launchers and a watcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from kbroker.errors import ClusterError
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.local.child import die_with_parent
from kbroker.local.cluster_process import LocalCluster
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.redis_client import connect
from kbroker.result_stream import read_watch

_READY_WITHIN = 30.0
_STOP_WITHIN = 10.0
# Everything is on this machine: what is slow elsewhere is over in a moment here.
LOCAL_DEFAULTS = {
    "broker.redelivery_after": "5",
    "kubernetes.create_window": "5",
    "watcher.check_interval": "0.5",
    "watcher.fatal_waiting_grace": "2",
    "watcher.lease": "5",
}


class Stack:
    """Child processes that all end with this one.

    Args:
        config: the configuration that the stack fills in.
        folder: logs and state.
        launchers: launcher processes.
    """

    def __init__(self, config: KubeConfig, folder: Path, launchers: int) -> None:
        self.folder = folder
        self._given = config
        self._launchers = launchers
        self._redis = EmbeddedRedis()
        self._cluster = LocalCluster(folder / "cluster")
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self.config = config

    @property
    def logs(self) -> Path:
        """Folder of the tasks' logs: namespace/pod/uid/container.log."""
        return self._cluster.logs

    def __enter__(self) -> Stack:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._redis.start()
        self._cluster.start()
        self.config = with_defaults(
            self._given,
            {
                **LOCAL_DEFAULTS,
                "broker.url": self._redis.url,
                "kubernetes.kubeconfig": str(self._cluster.kubeconfig),
            },
        )
        self._worker("watcher", "workers.watcher")
        for number in range(1, self._launchers + 1):
            self._worker(
                f"launcher-{number}",
                *("dramatiq", "workers.launcher", "--processes", "1", "--threads", "2"),
            )
        self._wait_for_watcher()

    def _worker(self, name: str, *module: str) -> None:
        env = {**os.environ, **self.config.as_env()}
        with self._log(name).open("wb") as output:
            self._workers[name] = subprocess.Popen(
                [sys.executable, "-m", *module],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for this process alone
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - only calls prctl
            )

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _wait_for_watcher(self) -> None:
        place = (self.config.kubernetes.cluster, self.config.kubernetes.namespace)
        key = RedisKeys(self.config.broker.prefix).watch(*place)
        client = connect(self._redis.url, 5.0)
        deadline = time.monotonic() + _READY_WITHIN
        while not read_watch(client, key).synced_at:
            self.check()
            if time.monotonic() > deadline:
                log = self._log("watcher")
                raise ClusterError(f"the watcher is not ready after {_READY_WITHIN:g} s; see {log}")
            time.sleep(0.02)
        client.close()

    def check(self) -> None:
        """See that every process still runs.

        Raises:
            ClusterError: one has ended; says which, and what it said last.
        """
        for name, worker in self._workers.items():
            if worker.poll() is not None:
                said = self._log(name).read_text(errors="replace").strip().splitlines()
                last = said[-1] if said else "it said nothing"
                raise ClusterError(f"{name} ended with exit code {worker.returncode}: {last}")

    def stop(self) -> None:
        """End everything, in the order in which it depends on each other."""
        for worker in self._workers.values():
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_WITHIN
        for worker in self._workers.values():
            try:
                worker.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
        self._workers.clear()
        self._cluster.stop()
        self._redis.stop()


def with_defaults(config: KubeConfig, defaults: dict[str, str]) -> KubeConfig:
    """The configuration with other defaults: what was given explicitly stays."""
    values = config.values()
    given = {name: values[name] for name in values if config.source(name) != "default"}
    return KubeConfig.from_values(**{**defaults, **given})
