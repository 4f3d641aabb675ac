"""A launcher and a watcher reduced to what they say to Redis, to play an executor's world."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from kbroker import naming
from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.event_intake import Observe
from kbroker.executor import KubernetesExecutor
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.launch_reply import Granted
from kbroker.lease import Lease
from kbroker.message import LaunchMessage
from kbroker.redis_client import connect, run
from kbroker.renewal import Renew
from kbroker.task import Attempt, TaskKey
from tests.records import Records

PLACE = ("default", "default")


def poll(what: str, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until the condition is true; its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what}")


class Scene:
    """Plays launchers and the watcher against one Redis."""

    def __init__(self, url: str, **values: Any) -> None:
        settings = {
            "broker.url": url,
            "core.executor_lease": 1.0,
            "core.reconcile_interval": 0.1,
            "kubernetes.create_window": 0.3,
            "kubernetes.retry_budget": 0.2,
        }
        self.config = KubeConfig.from_values(
            **{**settings, **{k.replace("__", "."): v for k, v in values.items()}}
        )
        self.redis = connect(url, 5.0)
        self.keys = RedisKeys(self.config.broker.prefix)
        self.records = Records(
            self.keys, self.config.broker.record_ttl, self.config.kubernetes.create_window
        )
        self.watch_lease = Lease(self.redis, self.keys.lease(*PLACE), 60.0)
        self.version = 10

    def lead(self, *, complete: bool = True) -> None:
        """Become the leading watcher; with a complete picture by default."""
        assert self.watch_lease.acquire()
        terms = {"token": self.watch_lease.token, "leader": "scene"}
        run(self.redis, [self.records.relisting(PLACE, new_generation=False, **terms)])
        if complete:
            run(self.redis, [self.records.synced(PLACE, self.version, **terms)])

    def bookmark(self) -> None:
        """The watch is up to date."""
        self.version += 1
        terms = {"token": self.watch_lease.token, "leader": "scene"}
        assert run(self.redis, [self.records.checkpoint(PLACE, self.version, **terms)]) == [True]

    def executor(
        self,
        executor_id: str = "exec-1",
        *,
        renew: Renew | None = None,
        observe: Observe | None = None,
        **values: Any,
    ) -> KubernetesExecutor:
        """A started executor of this installation."""
        overrides = {"core.executor_id": executor_id}
        overrides.update({k.replace("__", "."): v for k, v in values.items()})
        config = KubeConfig.from_values(**{**self.overrides(), **overrides})
        executor = KubernetesExecutor(config, renew=renew, observe=observe)
        executor.start()
        return executor

    def overrides(self) -> dict[str, Any]:
        """The settings of this scene, to derive another configuration from."""
        return {
            name.removeprefix("KBROKER__").lower().replace("__", "."): value
            for name, value in self.config.as_env().items()
        }

    def queued(self, priority: str = "normal") -> list[LaunchMessage]:
        """The launches on a queue, in order."""
        entries = self.redis.xrange(self.keys.launch_queue("default", priority))
        bodies = [orjson.loads(fields[b"message"])["args"][0] for _, fields in entries]
        return [LaunchMessage.from_dict(body) for body in bodies]

    def removals(self) -> list[dict[str, Any]]:
        """Every removal that was asked for: on the queue and parked."""
        entries = self.redis.xrange(self.keys.delete_queue("default"))
        asked = [orjson.loads(fields[b"message"])["args"][0] for _, fields in entries]
        parked = self.redis.hvals(self.keys.parked_messages("default"))
        return asked + [orjson.loads(message) for message in parked]

    def take(self, attempt: Attempt) -> Granted:
        """A launcher takes the entry: it is granted, and gone from the queue."""
        reply = run(self.redis, [self.records.grant(attempt, launcher="scene", expires_at=None)])[0]
        assert isinstance(reply, Granted), reply
        self.drop_entries(attempt)
        return reply

    def drop_entries(self, attempt: Attempt) -> None:
        """Remove the attempt's queue entry, as an acknowledgement does."""
        for priority in self.config.broker.priorities:
            queue = self.keys.launch_queue("default", priority)
            for entry, fields in self.redis.xrange(queue):
                body = orjson.loads(fields[b"message"])["args"][0]
                if LaunchMessage.from_dict(body).attempt == attempt:
                    self.redis.xdel(queue, entry)

    def pod(self, attempt: Attempt, state: PodState, **values: Any) -> PodEvent:
        """An event of the attempt's pod at the next resource version."""
        self.version += 1
        event = PodEvent(
            attempt=attempt,
            cluster="default",
            namespace="default",
            pod=naming.pod_name(attempt),
            state=state,
            uid=f"uid-{attempt.digest[:8]}",
            resource_version=self.version,
            at=time.time(),
        )
        return event.changed(**values)

    def report(self, event: PodEvent) -> str:
        """A launcher says what it found."""
        outcome: str = run(self.redis, [self.records.report(event)])[0]
        return outcome

    def watched(self, event: PodEvent, *, gone: bool = False) -> str:
        """The watcher says what it saw."""
        call = self.records.apply(event, gone=gone, token=self.watch_lease.token, leader="scene")
        outcome: str = run(self.redis, [call])[0]
        return outcome

    def launched(self, attempt: Attempt) -> None:
        """A launcher creates the pod, and the watcher sees it run."""
        self.take(attempt)
        self.report(self.pod(attempt, PodState.PENDING))
        self.watched(self.pod(attempt, PodState.RUNNING, started=Started.YES))

    def record(self, attempt: Attempt) -> dict[str, str]:
        """The launch record as redis-cli shows it."""
        fields = self.redis.hgetall(self.keys.task(attempt.launch.digest))
        return {name.decode(): value.decode() for name, value in fields.items()}


def failed(scene: Scene, attempt: Attempt, cause: Cause, started: Started) -> PodEvent:
    """The final event of a failed pod."""
    return scene.pod(
        attempt, PodState.FAILED, cause=cause, started=started, message=f"it was {cause}"
    )


def key(task: str = "task") -> TaskKey:
    """A task key."""
    return TaskKey("dag", task, "run-1")
