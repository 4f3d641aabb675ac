"""The executor's broker side: everything it says to Redis, and nothing to Kubernetes.

Named after the class that Airflow's users know. It publishes launches and
deletions, reads the executor's result stream, and keeps the executor's lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from kbroker import naming
from kbroker.abandoned import Abandoned, abandoned
from kbroker.event import KnownLaunch, PodEvent, no_launch
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.launch_record import LaunchRecords
from kbroker.launch_reply import Adopted, Missing, Published, Refused
from kbroker.lease import Lease, LeaseState
from kbroker.message import DeleteMessage, LaunchMessage, SecretMessage
from kbroker.patience import Patience
from kbroker.redis_client import availability, connect, run, told
from kbroker.result_stream import Result, ResultStream, WatchProgress, read_watch
from kbroker.task import Attempt, Launch, TaskKey
from kbroker.value import Value

# Records looked at in one pipeline.
_SCANNED_AT_ONCE = 500


class ResultQueue(Protocol):
    """Anything with `put`: takes what the result stream delivers."""

    def put(self, item: Result) -> None:
        """Take one result."""


class Job(Value, frozen=True):
    """One launch to publish: its message and the priority queue it goes to."""

    message: LaunchMessage
    priority: str


@dataclass(frozen=True, slots=True)
class WatchHealth:
    """Whether a watcher leads and makes progress.

    Attributes:
        healthy: it proved to be up to date within the allowed time.
        leader: its name; "" when nobody has led yet.
        silent_for: seconds since the last proof; None before the first.
    """

    healthy: bool
    leader: str
    silent_for: float | None


class AirflowKubernetesScheduler:
    """Publishes launches and deletions, drains results into a queue.

    Args:
        config: the configuration; `broker.url` must be set.
        result_queue: takes the results that `sync` reads.
        executor_id: this executor process.
        own_tasks: the executor's tasks, for `_labels_to_key`.
        own_launch: finds one of the executor's launches by its name.
        redis: a client to use instead of connecting to `broker.url`.

    Every method that talks to Redis raises BrokerUnavailableError when it is away.
    """

    def __init__(
        self,
        config: KubeConfig,
        result_queue: ResultQueue,
        executor_id: str,
        *,
        own_tasks: Callable[[], Iterable[TaskKey]] = tuple,
        own_launch: KnownLaunch = no_launch,
        redis: Any = None,
    ) -> None:
        self.config = config
        self.patience = Patience(config.broker.scheduler_timeout)
        self._redis = redis or connect(
            config.broker.url, config.broker.scheduler_timeout, self.patience
        )
        self.keys = RedisKeys(config.broker.prefix)
        self.records = LaunchRecords(
            self.keys, config.broker.record_ttl, config.kubernetes.create_window
        )
        self.executor_id = executor_id
        self.result_queue = result_queue
        self.lease = Lease(self._redis, self.keys.executor(executor_id), config.core.executor_lease)
        self._own_tasks = own_tasks
        self._own_launch = own_launch
        self._stream = self._make_kube_watcher()

    # Launching and deleting.

    def run_next(self, next_job: Job) -> Published | Refused:
        """Publish one launch: its record and its message in one atomic step."""
        return self.publish([next_job])[0]

    def publish(self, jobs: Sequence[Job]) -> list[Published | Refused]:
        """Publish launches in one pipeline; the replies stand in the jobs' order."""
        calls = []
        for job in jobs:
            queue = self._launch_queue(job)
            # dramatiq knows urgency by actor.
            actor = f"launch.{job.priority}"
            entry = _entry(queue, actor, job.message.attempt.digest, job.message.as_dict())
            key = self.keys.prefix + queue
            calls.append(self.records.publish(self.lease.token, job.message, key, entry))
        return run(self._redis, calls)

    def delete_pod(self, message: DeleteMessage) -> None:
        """Ask the launchers to remove one pod, at once."""
        queue = self.keys.delete_queue(message.cluster)
        name = queue.removeprefix(self.keys.prefix)
        entry = _entry(name, "delete", f"{message.removal}:{message.uid}", message.as_dict())
        with availability():
            self._redis.xadd(queue, {"message": entry})

    def request_secrets(self, messages: Iterable[SecretMessage]) -> None:
        """Ask the launchers to create or replace these Secrets, in one pipeline."""
        pipe = self._redis.pipeline(transaction=False)
        for message in messages:
            queue = self.keys.secrets_queue(message.cluster)
            name = queue.removeprefix(self.keys.prefix)
            item = f"{message.namespace}/{message.name}"
            pipe.xadd(queue, {"message": _entry(name, "secret", item, message.as_dict())})
        with availability():
            pipe.execute()

    def withdraw(self, launches: Iterable[tuple[Attempt, str, str, str]]) -> list[str]:
        """Take back the permission for (attempt, cluster, namespace, reason) each."""
        return run(
            self._redis,
            [
                self.records.withdraw(
                    self.lease.token,
                    self.executor_id,
                    attempt,
                    (cluster, namespace),
                    reason,
                    pod=naming.pod_name(attempt),
                )
                for attempt, cluster, namespace, reason in launches
            ],
        )

    def finish(
        self, launches: Iterable[tuple[Launch, Sequence[str], DeleteMessage | None]]
    ) -> list[str]:
        """Close records, delete their stream entries, let their pods go; in one pipeline."""
        return run(
            self._redis,
            [
                self.records.finish(self.lease.token, self.executor_id, *launch)
                for launch in launches
            ],
        )

    # Results.

    def sync(self) -> int:
        """Drain up to `core.event_batch` results into the result queue; returns how many."""
        results = self._stream.read(self.config.core.event_batch)
        for result in results:
            self.process_watcher_task(result)
        return len(results)

    def process_watcher_task(self, task: Result) -> None:
        """Hand one result to the result queue."""
        self.result_queue.put(task)

    def discard(self, entries: Iterable[str]) -> None:
        """These stream entries say nothing more: they go with the next `sync`, or at the end."""
        self._stream.discard(entries)

    def _make_kube_watcher(self) -> ResultStream:
        """The reader of this executor's result stream, from its beginning."""
        key = self.keys.results(self.executor_id)
        return ResultStream(self._redis, key, self._own_launch)

    def _health_check_kube_watcher(
        self, cluster: str | None = None, namespace: str | None = None
    ) -> WatchHealth:
        """Judge the leading watcher by its progress in `watch:<cluster>:<namespace>`."""
        progress = self.progress(
            cluster or self.config.kubernetes.cluster,
            namespace or self.config.kubernetes.namespace,
        )
        if not progress.progress:
            return WatchHealth(False, progress.leader, None)
        silent = max(0.0, (self.now_ms() - progress.progress) / 1000)
        return WatchHealth(
            silent <= 2 * self.config.watcher.silent_timeout, progress.leader, silent
        )

    def progress(self, cluster: str, namespace: str) -> WatchProgress:
        """How far the leading watcher of one namespace is."""
        return read_watch(self._redis, self.keys.watch(cluster, namespace))

    # The lease and what Redis knows.

    def renew(self) -> LeaseState:
        """Extend the executor's lease, and be seen among the executors."""
        state = self.lease.renew()
        if state is LeaseState.HELD:
            with availability():
                self._redis.zadd(self.keys.executors, {self.executor_id: self.now_ms()})
        return state

    def now_ms(self) -> int:
        """Redis' clock in ms."""
        with availability():
            seconds, microseconds = self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def glance(self, launches: Sequence[tuple[Attempt, str, str, PodEvent | None]]) -> list[bool]:
        """Whether launches (attempt, cluster, namespace, its last event) stand as believed."""
        token, owner = self.lease.token, self.executor_id
        return run(
            self._redis,
            [
                self.records.glance(token, owner, attempt, self.keys.pods(*place), known)
                for attempt, *place, known in launches
            ],
        )

    def look_up(
        self, launches: Sequence[tuple[Attempt, str, str, PodEvent | None, bool]]
    ) -> list[Adopted | Missing | Refused]:
        """Adopt launches (attempt, cluster, namespace, last known event, claim) in one pipeline.

        A launch of ours is just read; one of a dead executor becomes ours; a lost record is
        rewritten from the picture of pods or from the known event. For `claim` see
        `LaunchRecords.adopt`.
        """
        calls = []
        for attempt, cluster, namespace, known, claim in launches:
            newest = max(attempt.number, self.config.core.relaunch_limit + 1)
            names = [naming.pod_name(attempt.launch.attempt(n + 1)) for n in range(newest)]
            calls.append(
                self.records.adopt(
                    self.lease.token,
                    self.executor_id,
                    attempt,
                    (cluster, namespace),
                    names,
                    known,
                    claim=claim,
                )
            )
        return run(self._redis, calls)

    def pods_present(self, pods: Sequence[tuple[str, str, str]]) -> list[bool]:
        """Whether the picture has each (cluster, namespace, pod); in one pipeline."""
        commands = [("HEXISTS", self.keys.pods(*place), pod) for *place, pod in pods]
        return [bool(reply) for reply in told(self._redis, commands)]

    def removals_asked(self, pods: Sequence[tuple[Launch, str]]) -> list[bool]:
        """Whether the record of each launch knows that this uid's removal was asked for."""
        commands = [("HEXISTS", self.keys.task(x.digest), f"removal:{uid}") for x, uid in pods]
        return [bool(reply) for reply in told(self._redis, commands)]

    def given_up(self, launches: Sequence[Launch]) -> list[bool]:
        """Whether the record of each says that it is over, or not ours; in one pipeline.

        A lost record says nothing: its launch may still be adopted.
        """
        replies = told(
            self._redis, [("HMGET", self.keys.task(x.digest), "state", "owner") for x in launches]
        )
        ours = [b"wanted", self.executor_id.encode()]
        return [found[0] is not None and found != ours for found in replies]

    def abandoned(self, cursor: int) -> tuple[int, list[Abandoned]]:
        """See `kbroker.abandoned`."""
        return abandoned(self._redis, self.keys, self.config.core.deployment, cursor)

    def rewind(self) -> None:
        """Read the result stream from its beginning again: Redis may have lost data."""
        self._stream.rewind()

    def leave(self, *, remove_stream: bool) -> None:
        """Give up the lease; remove the result stream if nothing in it matters."""
        if remove_stream:
            self._stream.remove()
            with availability():
                if not self._owns_launches():
                    self._redis.zrem(self.keys.executors, self.executor_id)
        else:
            self._stream.flush()
        self.lease.release()

    def _owns_launches(self) -> bool:
        """Whether an earlier life wanted what this one was never asked for.

        Then the watcher has to know the executor, to let its records expire in time.
        """
        ours = self.executor_id.encode()
        reply: Any = (0, [])
        while True:
            reply = self._redis.zscan(self.keys.tasks, reply[0], count=_SCANNED_AT_ONCE)
            cursor, found = reply
            pipe = self._redis.pipeline(transaction=False)
            for digest, _ in found:
                pipe.hget(self.keys.task(digest.decode()), "owner")
            if ours in pipe.execute():
                return True
            if not cursor:
                return False

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    # Names, as Airflow's scheduler class had them.

    def _labels_to_key(self, labels: Mapping[str, str]) -> TaskKey | None:
        """The executor's own task with these labels, None if unknown.

        Labels are shortened and cannot be turned back; the exact values stand in
        the pod's annotations.
        """
        wanted = {name: labels.get(name) for name in _TASK_LABELS}
        for key in self._own_tasks():
            launch = Launch(self.config.core.deployment, key, "any")
            present = naming.labels_for(launch.attempt(1), self.executor_id)
            if all(present.get(name) == value for name, value in wanted.items()):
                return key
        return None

    _strip_unsafe_kubernetes_special_chars = staticmethod(
        naming.strip_unsafe_kubernetes_special_chars
    )
    _make_safe_pod_id = staticmethod(naming.make_safe_pod_id)
    _make_safe_label_value = staticmethod(naming.make_safe_label_value)
    _create_pod_id = staticmethod(naming.create_pod_id)
    _label_safe_datestring_to_datetime = staticmethod(naming.label_safe_datestring_to_datetime)
    _datetime_to_label_safe_datestring = staticmethod(naming.datetime_to_label_safe_datestring)

    def _launch_queue(self, job: Job) -> str:
        key = self.keys.launch_queue(job.message.cluster, job.priority)
        return key.removeprefix(self.keys.prefix)


_TASK_LABELS = ("dag_id", "task_id", "run_id", "try_number", "map_index")


def _entry(queue: str, actor: str, message_id: str, body: Mapping[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "queue_name": queue,
            "actor_name": actor,
            "args": [body],
            "kwargs": {},
            "options": {},
            "message_id": message_id,
            "message_timestamp": int(time.time() * 1000),
        }
    )
