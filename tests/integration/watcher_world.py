"""An executor's and a launcher's part played by a test, beside real watcher processes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import orjson

from kbroker.event import PodEvent, PodState
from kbroker.keys import RedisKeys
from kbroker.kube_client import KubeClient
from kbroker.kube_config import KubeConfig
from kbroker.launch_reply import Granted, Published
from kbroker.lease import Lease
from kbroker.local.cluster_process import LocalCluster
from kbroker.message import LaunchMessage
from kbroker.naming import annotations_for, labels_for, pod_name
from kbroker.redis_client import connect, connect_async, run
from kbroker.result_stream import Result, WatchProgress, read_picture, read_result, read_watch
from kbroker.task import Attempt, Launch, TaskKey
from kbroker.watch_leader import WatchLeader
from tests.integration.scene import poll
from tests.records import Records

ROOT = Path(__file__).resolve().parents[2]
EXECUTOR = "exec-1"
LEASE = 1.5
QUICK = {
    "watcher.lease": LEASE,
    "watcher.silent_timeout": 20.0,
    "watcher.backoff_base": 0.05,
    "watcher.backoff_max": 0.3,
    "watcher.check_interval": 0.2,
}


class WatcherProcess:
    """`python -m workers.watcher` as a child."""

    def __init__(self, config: KubeConfig, log: Path, *arguments: str) -> None:
        self.log = log
        env = {k: v for k, v in os.environ.items() if not k.startswith(("KBROKER", "KUBE"))}
        with log.open("wb") as output:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "workers.watcher", *arguments],
                cwd=ROOT,
                env={**env, "HOME": str(log.parent), **config.as_env()},
                stdout=output,
                stderr=output,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.child.send_signal(number)

    def wait(self, seconds: float = 20.0) -> int:
        """Its exit code, once it has ended."""
        return self.child.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, whether it is stopped or not."""
        self.child.kill()
        self.child.wait(10)

    @property
    def name(self) -> str:
        """What ends its name as a leader."""
        return f"-{self.child.pid}"

    @property
    def said(self) -> str:
        """Everything it has printed."""
        return self.log.read_text(errors="replace")


class WatcherThread:
    """The same leader in this process: starts at once, and cannot be killed.

    Its log is that of this process while it runs.
    """

    def __init__(self, config: KubeConfig, number: int) -> None:
        self.name = f"-thread-{number}"
        self._config = config
        self._records: list[logging.LogRecord] = []
        self._handler = logging.Handler()
        self._handler.emit = self._records.append  # type: ignore[method-assign]
        self._logger = logging.getLogger("kbroker")
        self._logger.addHandler(self._handler)
        self._level = self._logger.level
        self._logger.setLevel(logging.INFO)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._task = self._loop.create_task(self._lead())
        self._loop.run_until_complete(asyncio.wait([self._task]))
        self._loop.close()

    async def _lead(self) -> None:
        kube = await KubeClient.connect(self._config.kubernetes)
        client = connect_async(self._config.broker.url, 5.0)
        try:
            await WatchLeader(self._config, kube, client, self.name).run()
        finally:
            await kube.close()
            await client.aclose()

    def kill(self) -> None:
        """End it."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(10)
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level)
        assert self._task.cancelled(), self._task.exception()

    @property
    def said(self) -> str:
        """Everything it has logged."""
        return "\n".join(record.getMessage() for record in list(self._records))


class WatcherWorld:
    """One test's namespace, tasks, watchers and Redis."""

    def __init__(self, url: str, cluster: LocalCluster, namespace: str, folder: Path) -> None:
        self.cluster = cluster
        self.admin = cluster.admin
        self.folder = folder
        self.namespace = re.sub(r"[^a-z0-9]+", "-", namespace.lower())[:63].strip("-")
        self.place = ("default", self.namespace)
        self.redis = connect(url, 5.0)
        self.url = url
        self.keys = RedisKeys()
        self.records = Records(self.keys, 60.0, 1.0)
        self.lease = Lease(self.redis, self.keys.executor(EXECUTOR), 600.0)
        assert self.lease.acquire()
        self.watchers: list[WatcherProcess | WatcherThread] = []
        self.admin.post("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.pods_path = f"/api/v1/namespaces/{self.namespace}/pods"

    def close(self) -> None:
        """End the watchers and remove the pods."""
        for watcher in self.watchers:
            watcher.kill()
        self.admin.delete("/_local/faults")
        for pod in self.admin.get(self.pods_path)["items"]:
            self.admin.delete(f"{self.pods_path}/{pod['metadata']['name']}?gracePeriodSeconds=0")
        self.redis.close()

    def config(self, **values: Any) -> KubeConfig:
        """The configuration of this world's watchers."""
        return KubeConfig.from_values(
            **{
                **QUICK,
                "broker.url": self.url,
                "kubernetes.kubeconfig": str(self.cluster.kubeconfig),
                "kubernetes.namespace": self.namespace,
                **{name.replace("__", "."): value for name, value in values.items()},
            }
        )

    # Watchers.

    def watcher(self, *arguments: str, **values: Any) -> WatcherProcess:
        """Start one more."""
        log = self.folder / f"watcher-{len(self.watchers)}.log"
        watcher = WatcherProcess(self.config(**values), log, *arguments)
        self.watchers.append(watcher)
        return watcher

    def leading(self, **values: Any) -> WatcherProcess:
        """Start one, and wait until it has listed everything."""
        watcher = self.watcher(**values)
        self._listed(watcher.name)
        return watcher

    def watching(self, **values: Any) -> WatcherThread:
        """The same in this process, for tests that do not kill it."""
        watcher = WatcherThread(self.config(**values), len(self.watchers))
        self.watchers.append(watcher)
        self._listed(watcher.name)
        return watcher

    def _listed(self, name: str) -> None:
        self.until("it leads", lambda: self.progress().leader.endswith(name))
        self.until("it has listed", lambda: self.progress().synced_at)

    def progress(self) -> WatchProgress:
        """What the leader says of itself."""
        return read_watch(self.redis, self.keys.watch(*self.place))

    def until(self, what: str, condition: Any, seconds: float = 15.0) -> Any:
        """Wait for something; says what the watchers printed if it does not come."""
        try:
            return poll(what, condition, seconds)
        except AssertionError as error:
            said = "\n".join(f"--- {w.name}\n{w.said[-2000:]}" for w in self.watchers)
            raise AssertionError(f"{error}\n{self.states()}\n{said}") from None

    # Launches and pods.

    def attempt(self, task: str) -> Attempt:
        """The first attempt of a task."""
        return Launch("kbroker", TaskKey("dag", task, "run-1"), "launch-1").attempt(1)

    def wanted(self, task: str) -> Attempt:
        """A launch that is published and granted."""
        attempt = self.attempt(task)
        message = LaunchMessage(attempt, EXECUTOR, *self.place, command=("true",))
        queue = self.keys.launch_queue("default", "normal")
        publish = self.records.publish(self.lease.token, message, queue, b"{}")
        grant = self.records.grant(attempt, launcher="test", expires_at=None)
        published, granted = run(self.redis, [publish, grant])
        assert isinstance(published, Published)
        assert isinstance(granted, Granted)
        return attempt

    def create(
        self, attempt: Attempt, script: str = "true", *, executor: str = EXECUTOR, **spec: Any
    ) -> dict[str, Any]:
        """The attempt's pod; `spec` adds to its specification or, as `image`, its container."""
        container = {
            "name": "base",
            "image": spec.pop("image", "busybox"),
            "command": ["sh", "-c", script],
        }
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod_name(attempt),
                "labels": labels_for(attempt, executor),
                "annotations": annotations_for(attempt, executor),
            },
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
                **spec,
            },
        }
        pod: dict[str, Any] = self.admin.post(self.pods_path, manifest)
        return pod

    def launched(self, task: str, script: str = "true", **spec: Any) -> Attempt:
        """A wanted launch with its pod."""
        attempt = self.wanted(task)
        self.create(attempt, script, **spec)
        return attempt

    def remove(self, attempt: Attempt) -> None:
        """Delete its pod at once."""
        self.admin.delete(f"{self.pods_path}/{pod_name(attempt)}?gracePeriodSeconds=0")

    def phase(self, attempt: Attempt) -> str:
        """The pod's phase, asked of the cluster."""
        return str(self.admin.get(f"{self.pods_path}/{pod_name(attempt)}")["status"]["phase"])

    # What came of it.

    def results(self) -> list[Result]:
        """The executor's result stream."""
        return [read_result(*entry) for entry in self.redis.xrange(self.keys.results(EXECUTOR))]

    def events(self, attempt: Attempt) -> list[PodEvent]:
        """What the executor was told about one attempt."""
        return [r.event for r in self.results() if r.event and r.event.attempt == attempt]

    def states(self) -> dict[str, list[str]]:
        """Task → the states the executor was told."""
        told: dict[str, list[str]] = {}
        for result in self.results():
            if result.event is not None:
                told.setdefault(result.event.launch.key.task_id, []).append(result.event.state)
        return told

    def final(self, attempt: Attempt) -> PodEvent:
        """The final event, once it has come; it comes once."""
        self.until(
            f"{attempt.launch.key} is final", lambda: any(e.final for e in self.events(attempt))
        )
        finals = [event for event in self.events(attempt) if event.final]
        assert len(finals) == 1, finals
        return finals[0]

    def runs(self, attempt: Attempt) -> None:
        """Wait until the executor knows that it runs."""
        self.until(
            f"{attempt.launch.key} runs",
            lambda: any(e.state is PodState.RUNNING for e in self.events(attempt)),
        )

    def picture(self) -> dict[str, PodEvent]:
        """The pods that exist, as Redis has them."""
        return read_picture(self.redis, self.keys.pods(*self.place))

    def removals(self) -> list[dict[str, Any]]:
        """Every removal that launchers were asked for."""
        entries = self.redis.xrange(self.keys.delete_queue("default"))
        asked = [orjson.loads(fields[b"message"])["args"][0] for _, fields in entries]
        parked = self.redis.hvals(self.keys.parked_messages("default"))
        return asked + [orjson.loads(message) for message in parked]

    def dump(self) -> dict[bytes, bytes | None]:
        """Everything in Redis but leases, to compare."""
        keys = [key for key in self.redis.keys("*") if b"lease:" not in key]
        return {key: self.redis.dump(key) for key in sorted(keys)}

    def requests(self, verb: str) -> int:
        """How many requests for pods the API server has had."""
        stats = self.admin.get("/_local/stats")
        return sum(count for name, count in stats.items() if name.startswith(f"{verb} pods"))

    def sleep_past_lease(self) -> None:
        """Let the watcher's lease run out; by Redis' clock."""
        self.until(
            "the lease has run out", lambda: not self.redis.exists(self.keys.lease(*self.place))
        )
