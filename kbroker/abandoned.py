"""Launches that are wanted by executors that are dead, as Redis has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import redis

from kbroker.errors import TaskError
from kbroker.keys import RedisKeys
from kbroker.redis_client import availability, told
from kbroker.task import Attempt, Launch, TaskKey
from kbroker.value import Value

_AT_ONCE = 500
_FIELDS = ("owner", "deployment", "key", "launch_id", "attempt", "cluster", "namespace", "final")


class Abandoned(Value, frozen=True):
    """A launch that is wanted by an executor that is dead.

    Attributes:
        attempt: the launch, at its present attempt.
        place: cluster and namespace.
        final: whether its pod has finished.
    """

    attempt: Attempt
    place: tuple[str, str]
    final: bool


def abandoned(
    client: redis.Redis, keys: RedisKeys, deployment: str, cursor: int
) -> tuple[int, list[Abandoned]]:
    """Some of a deployment's launches whose executor is dead, and where to go on; 0: the end.

    Args:
        client: Redis.
        keys: names.
        deployment: whose launches.
        cursor: 0 to begin with.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with availability():
        reply: Any = client.zscan(keys.tasks, cursor, count=_AT_ONCE)
    cursor, found = reply
    records = told(client, [("HMGET", keys.task(x.decode()), *_FIELDS) for x, _ in found])
    owners = {record[0] for record in records if record[0] is not None}
    alive = told(client, [("EXISTS", keys.executor(owner.decode())) for owner in owners])
    dead = {owner for owner, lives in zip(owners, alive, strict=True) if not lives}
    read = [_read(record) for record in records if record[0] in dead]
    return int(cursor), [x for x in read if x and x.attempt.launch.deployment == deployment]


def _read(record: Sequence[bytes | None]) -> Abandoned | None:
    """What HMGET says of a launch; None where it is not readable."""
    try:
        _, deployment, key, launch_id, attempt, cluster, namespace, final = record
        task = TaskKey.from_list(orjson.loads(key or b""))
        launch = Launch(_text(deployment), task, _text(launch_id))
        place = (_text(cluster), _text(namespace))
        return Abandoned(launch.attempt(int(attempt or 1)), place, bool(final))
    except (TaskError, ValueError):
        return None


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
