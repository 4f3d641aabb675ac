"""Everything that Redis says about one launch, read in a few round trips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis
from redis.exceptions import ResponseError

from kbroker.errors import MessageError, TaskError
from kbroker.keys import LAUNCHERS_GROUP, RedisKeys
from kbroker.launch_reply import Record
from kbroker.record_scripts import launch_item
from kbroker.redis_client import availability
from kbroker.result_stream import WatchProgress
from kbroker.task import Launch, TaskKey

FURTHEST = 1000  # entries that are counted in front of a message
_RELEASED_MS = 2**31 - 1
_SCAN = 1000
_TIMES = ("published_at", "granted_at", "started_at", "finished_at", "closed_at")


@dataclass(frozen=True, slots=True)
class Message:
    """Where the launch's message is; times in ms.

    Attributes:
        place: queued, in hand, parked, dead, or none.
        queue: name of the stream; "" for none.
        ahead: entries before it, up to `FURTHEST`.
        length: entries of the queue.
        holder: the consumer that has it in hand.
        held_for: since when.
        deliveries: how often it was handed out.
        due: when a parked one is looked at again.
        newest_look: since when no launcher has looked at the queue; None where there is none.
    """

    place: str = "none"
    queue: str = ""
    ahead: int = 0
    length: int = 0
    holder: str = ""
    held_for: int = 0
    deliveries: int = 0
    due: int = 0
    newest_look: int | None = None


@dataclass(frozen=True, slots=True)
class Detail:
    """One launch; times in ms by Redis' clock.

    Attributes:
        launch: which one.
        cluster: its cluster.
        namespace: its namespace.
        record: as it stands.
        pod: name of its pod; "" if none was seen.
        launcher: that got the last permission; "" for none.
        reason: why it was withdrawn.
        times: what happened when.
        message: where its message is.
        now: Redis' clock.
        owner_alive: whether its executor holds its lease.
        owner_seen: when its executor renewed it last; None if it left, or is not known.
        watched: the leading watcher's progress.
        leads: whether a watcher holds the lease.
        not_before: until when the API server asked all launchers to wait.
        expires_in: until the record is forgotten; None while it is not.
    """

    launch: Launch
    cluster: str
    namespace: str
    record: Record
    now: int
    pod: str = ""
    launcher: str = ""
    reason: str = ""
    times: dict[str, int] = field(default_factory=dict)
    message: Message = Message()
    owner_alive: bool = True
    owner_seen: int | None = None
    watched: WatchProgress | None = None
    leads: bool = True
    not_before: int = 0
    expires_in: int | None = None


def find(
    client: redis.Redis, keys: RedisKeys, wanted: Callable[[TaskKey, str], bool]
) -> list[tuple[str, int]]:
    """Digests of the recorded launches, finished ones too, that are meant; the newest first.

    Args:
        client: Redis.
        keys: names.
        wanted: says of a task key and a launch id whether it is meant.

    Returns:
        Digests, with when they were published.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    found = []
    with availability():
        for names in _batches(client, keys):
            pipe = client.pipeline(transaction=False)
            for name in names:
                pipe.hmget(name, "key", "launch_id", "published_at")
            for name, (key, launch_id, at) in zip(names, pipe.execute(), strict=True):
                try:
                    if key and wanted(TaskKey.from_list(orjson.loads(key)), launch_id.decode()):
                        found.append((name.rpartition(":")[2], int(at or 0)))
                except (TaskError, ValueError, AttributeError):
                    continue  # not one of ours
    return sorted(set(found), key=lambda one: (-one[1], one[0]))


def _batches(client: redis.Redis, keys: RedisKeys) -> Iterator[list[str]]:
    escaped = "".join(f"\\{c}" if c in "*?[]\\" else c for c in keys.task(""))
    cursor: Any = 0
    while True:
        reply: Any = client.scan(cursor, match=f"{escaped}*", count=_SCAN)
        cursor, names = reply
        yield [name.decode() for name in names]
        if not cursor:
            return


def detail(client: redis.Redis, keys: RedisKeys, digest: str) -> Detail | None:
    """What stands about one launch; None without a readable record.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with availability():
        fields: Any = client.hgetall(keys.task(digest))
        try:
            record = Record.from_hash(fields)
            key = TaskKey.from_list(orjson.loads(fields[b"key"]))
            text = {name.decode(): value.decode() for name, value in fields.items()}
            launch = Launch(text["deployment"], key, text["launch_id"])
        except (KeyError, ValueError, MessageError, TaskError):
            return None
        place = (text["cluster"], text["namespace"])
        pipe = client.pipeline(transaction=False)
        pipe.time()
        pipe.exists(keys.executor(record.owner))
        pipe.zscore(keys.executors, record.owner)
        pipe.hgetall(keys.watch(*place))
        pipe.exists(keys.lease(*place))
        pipe.hget(keys.pace(place[0]), "not_before")
        pipe.pttl(keys.task(digest))
        (seconds, micros), alive, seen, watch, leads, pace, ttl = pipe.execute()
        return Detail(
            launch=launch,
            cluster=place[0],
            namespace=place[1],
            record=record,
            now=int(seconds) * 1000 + int(micros) // 1000,
            pod=text.get("pod", ""),
            launcher=text.get("launcher", ""),
            reason=text.get("reason", ""),
            times={name: int(text[name]) for name in _TIMES if name in text},
            message=_message(client, keys, launch, record, text),
            owner_alive=bool(alive),
            owner_seen=None if seen is None else int(seen),
            watched=WatchProgress.from_hash(watch),
            leads=bool(leads),
            not_before=int(pace or 0),
            expires_in=int(ttl) if int(ttl) >= 0 else None,
        )


def newest_look(client: redis.Redis, queue: str) -> int | None:
    """Since when (ms) no launcher has looked at a queue; None where none ever did.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with availability():
        try:
            consumers: Any = client.xinfo_consumers(queue, LAUNCHERS_GROUP)
        except ResponseError:
            return None
    return min((int(consumer["idle"]) for consumer in consumers), default=None)


def _message(
    client: redis.Redis, keys: RedisKeys, launch: Launch, record: Record, text: dict[str, str]
) -> Message:
    if record.dead:
        return Message("dead")
    if record.entry == "parked":
        item = launch_item(launch.attempt(record.attempt))
        due: Any = client.zscore(keys.parked(text["cluster"]), item)
        return Message() if due is None else Message("parked", due=int(due))
    queue = text.get("queue", "")
    if not (record.entry and queue and client.xrange(queue, record.entry, record.entry)):
        return Message()
    ahead: Any = client.xrange(queue, "-", record.entry, count=FURTHEST + 1)
    terms: dict[str, Any] = {
        "queue": queue,
        "ahead": sum(1 for entry, _ in ahead if entry.decode() != record.entry),
        "length": int(client.xlen(queue)),
    }
    terms["newest_look"] = newest_look(client, queue)
    try:
        pending: Any = client.xpending_range(queue, LAUNCHERS_GROUP, record.entry, record.entry, 1)
    except ResponseError:
        return Message("queued", **terms)  # no launcher has ever looked at it
    for one in pending:
        if one["time_since_delivered"] < _RELEASED_MS:
            return Message(
                "in hand",
                holder=one["consumer"].decode(),
                held_for=int(one["time_since_delivered"]),
                deliveries=int(one["times_delivered"]),
                **terms,
            )
    return Message("queued", **terms)
