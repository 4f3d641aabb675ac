"""An executor's and a watcher's part played by a test, beside real launcher processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import orjson

from kbroker.event import PodEvent
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.launch_reply import Published
from kbroker.lease import Lease
from kbroker.local.cluster_process import LocalCluster
from kbroker.message import DeleteMessage, LaunchMessage
from kbroker.naming import pod_name
from kbroker.redis_client import connect, run
from kbroker.result_stream import ResultStream
from kbroker.task import Attempt, Launch, TaskKey
from tests.records import Records

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "broker.redelivery_after": 1.0,
    "kubernetes.create_window": 6.0,
    "kubernetes.retry_budget": 4.0,
    "kubernetes.request_timeout": 3.0,
    "launcher.park_base": 0.2,
    "launcher.park_max": 0.5,
    "launcher.drain_interval": 0.1,
}


class LauncherProcess:
    """`dramatiq workers.launcher` as a child in a process group of its own."""

    def __init__(self, config: KubeConfig, log: Path, *, processes: int = 1) -> None:
        self.log = log
        argv = [sys.executable, "-m", "dramatiq", "workers.launcher", "--threads", "2"]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("KBROKER", "KUBE"))}
        with log.open("wb") as output:
            self.child = subprocess.Popen(
                [*argv, "--processes", str(processes)],
                cwd=ROOT,
                env={**env, "HOME": str(log.parent), **config.as_env()},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill(self) -> None:
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait(10)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


def poll(what: str, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until the condition is true; its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


class World:
    """One test's namespace, tasks and Redis."""

    def __init__(
        self,
        url: str,
        cluster: LocalCluster,
        namespace: str,
        prefix: str = "{kbroker}:",
        **settings: Any,
    ) -> None:
        self.admin = cluster.admin
        self.kubeconfig = cluster.kubeconfig
        self.namespace = re.sub(r"[^a-z0-9]+", "-", namespace.lower()).strip("-")[:63].strip("-")
        self.redis = connect(url, 5.0)
        self.config = config(url, cluster.kubeconfig, **{"broker.prefix": prefix, **settings})
        self.keys = RedisKeys(self.config.broker.prefix)
        self.records = Records(self.keys, 60.0, self.config.kubernetes.create_window)
        self.lease = Lease(self.redis, self.keys.executor("exec-1"), 60.0)
        assert self.lease.acquire()
        self.queue = self.keys.launch_queue("default", "normal")
        self.admin.post("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self._stream = ResultStream(self.redis, self.keys.results("exec-1"))
        self.seen: list[PodEvent] = []

    def beside(self, namespace: str) -> World:
        """The same executor's view of another namespace."""
        other = copy(self)
        other.namespace = namespace
        self.admin.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        return other

    # The executor.

    def message(
        self, task: str, command: tuple[str, ...] = ("true",), **more: Any
    ) -> LaunchMessage:
        launch = Launch("prod", TaskKey("dag", task, "run-1"), "launch-1")
        return LaunchMessage(
            attempt=launch.attempt(1),
            executor_id="exec-1",
            cluster="default",
            namespace=self.namespace,
            command=command,
            enqueued_at=self.now(),
            **more,
        )

    def launch(self, *messages: LaunchMessage, priority: str = "normal", actor: str = "") -> None:
        queue = self.keys.launch_queue("default", priority)
        actor = actor or f"launch.{priority}"
        calls = [
            self.records.publish(self.lease.token, message, queue, entry(actor, queue, message))
            for message in messages
        ]
        assert all(isinstance(reply, Published) for reply in run(self.redis, calls))

    def withdraw(self, attempt: Attempt) -> None:
        place = ("default", self.namespace)
        call = self.records.withdraw(self.lease.token, "exec-1", attempt, place, "revoked")
        assert run(self.redis, [call]) == ["ok"]

    def remove(self, pod: dict[str, Any], **values: Any) -> None:
        message = DeleteMessage(
            deployment="prod",
            cluster="default",
            namespace=self.namespace,
            pod=pod["metadata"]["name"],
            uid=pod["metadata"]["uid"],
            **values,
        )
        queue = self.keys.delete_queue("default")
        self.redis.xadd(queue, {"message": entry("delete", queue, message)})

    def events(self) -> list[PodEvent]:
        self.seen += [result.event for result in self._stream.read(1000)]
        return self.seen

    def states(self) -> dict[str, list[str]]:
        states: dict[str, list[str]] = {}
        for event in self.events():
            states.setdefault(event.launch.key.task_id, []).append(event.state.value)
        return states

    def last(self, message: LaunchMessage) -> PodEvent | None:
        mine = [e for e in self.events() if e.attempt == message.attempt]
        return mine[-1] if mine else None

    def idle(self) -> bool:
        """Whether nothing is queued or parked."""
        keys = [self.queue, self.keys.delete_queue("default")]
        return not any(self.redis.xlen(key) for key in keys) and not self.redis.zcard(
            self.keys.parked("default")
        )

    def now(self) -> int:
        seconds, microseconds = self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    # The cluster.

    def pods(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.admin.get(f"{self._path}/pods")["items"]
        return items

    def pod(self, message: LaunchMessage) -> dict[str, Any] | None:
        name = pod_name(message.attempt)
        return next((p for p in self.pods() if p["metadata"]["name"] == name), None)

    def phase(self, message: LaunchMessage) -> str:
        pod = self.pod(message)
        return "" if pod is None else str(pod["status"]["phase"])

    def quota(self, pods: int) -> None:
        body = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": str(pods)}}}
        self.admin.post(f"{self._path}/resourcequotas", body)

    def fault(self, action: dict[str, Any], times: int | None = None, **match: str) -> None:
        self.admin.post("/_local/faults", {"match": match, "times": times, "action": action})

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"


def config(url: str, kubeconfig: Path | str, **more: Any) -> KubeConfig:
    """The configuration of a launcher."""
    values = {**QUICK, "broker.url": url, "kubernetes.kubeconfig": str(kubeconfig)}
    return KubeConfig.from_values(**{**values, **more})


def entry(actor: str, queue: str, message: LaunchMessage | DeleteMessage) -> bytes:
    """The message as it stands in its queue, of which this is the full key."""
    return orjson.dumps(
        {
            "queue_name": queue.partition(":")[2],
            "actor_name": actor,
            "args": [message.as_dict()],
            "kwargs": {},
            "options": {},
            "message_id": "m",
            "message_timestamp": 0,
        }
    )
