"""What stands in Redis, for a person to look at: launches, their pods, their reasons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
import redis

from kbroker.errors import MessageError, TaskError
from kbroker.keys import RedisKeys
from kbroker.launch_reply import Record
from kbroker.redis_client import availability
from kbroker.task import Launch, TaskKey


@dataclass(frozen=True, slots=True)
class LaunchView:
    """One wanted launch.

    Attributes:
        key: the task.
        launch_id: this queueing of it.
        state: published, or the state of its last event.
        attempt: the present attempt.
        pod: name of its pod; "" before there is one.
        namespace: where the pod is, or will be.
        owner: id of the executor that wants it.
        reason: why it waits or failed; "" for none.
        age: seconds since it was published.
        cluster: name of the cluster.
        digest: names its record in Redis.
    """

    key: TaskKey
    launch_id: str
    state: str
    attempt: int
    pod: str
    namespace: str
    owner: str
    reason: str
    age: float
    cluster: str = ""
    digest: str = ""


def launches(client: redis.Redis, keys: RedisKeys, limit: int = 10_000) -> list[LaunchView]:
    """The wanted launches, the oldest first; `limit` of them, or all with 0.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with availability():
        digests: Any = client.zrange(keys.tasks, 0, limit - 1)
        pipe = client.pipeline(transaction=False)
        for digest in digests:
            pipe.hgetall(keys.task(digest.decode()))
        hashes = pipe.execute()
        seconds, _ = client.time()
    views = (
        _view(digest.decode(), fields, float(seconds))
        for digest, fields in zip(digests, hashes, strict=True)
        if fields
    )
    return [view for view in views if view is not None]


@dataclass(frozen=True, slots=True)
class LaunchTimes:
    """When the last attempt of a launch came along, seconds since the epoch by Redis' clock.

    Kubernetes' own times are whole seconds; these are when the events were applied.

    Attributes:
        granted_at: a launcher got permission to create its pod; None if it did not yet.
        started_at: its container was seen running; None if it was not.
        finished_at: it was seen final; None if it was not.
    """

    granted_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None


def launch_times(
    client: redis.Redis, keys: RedisKeys, launches: Iterable[Launch]
) -> list[LaunchTimes]:
    """The times of these launches, in order; empty where there is no record any more.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    pipe = client.pipeline(transaction=False)
    for launch in launches:
        pipe.hmget(keys.task(launch.digest), "granted_at", "started_at", "finished_at")
    with availability():
        replies = pipe.execute()
    return [LaunchTimes(*(at and int(at) / 1000 for at in reply)) for reply in replies]


def _view(digest: str, fields: dict[bytes, bytes], now: float) -> LaunchView | None:
    try:
        record = Record.from_hash(fields)
        key = TaskKey.from_list(orjson.loads(fields[b"key"]))
    except (MessageError, TaskError, KeyError, ValueError):
        return None
    event = record.event
    waiting = "parked" if record.entry == "parked" else "published"
    return LaunchView(
        key=key,
        launch_id=fields[b"launch_id"].decode(),
        state=waiting if event is None else event.state.value,
        attempt=record.attempt,
        pod=fields.get(b"pod", b"").decode(),
        namespace=fields.get(b"namespace", b"").decode(),
        owner=record.owner,
        reason=record.dead or (event.message or "" if event is not None else ""),
        age=max(0.0, now - int(fields.get(b"published_at", b"0")) / 1000),
        cluster=fields.get(b"cluster", b"").decode(),
        digest=digest,
    )
