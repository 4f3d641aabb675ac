"""The result stream and the picture of pods, as their readers see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import redis
import redis.asyncio

from kbroker.errors import MessageError, NewerSchemaError
from kbroker.event import BY_STOPPING, Cause, KnownLaunch, PodEvent, no_launch
from kbroker.redis_client import Command, availability, told
from kbroker.value import Value


class Result(Value, frozen=True):
    """One entry of the result stream.

    Attributes:
        entry: its stream id.
        event: the pod event; None where it cannot be read.
        problem: why it cannot be read.
    """

    entry: str
    event: PodEvent | None
    problem: str = ""


def read_result(
    entry: bytes, fields: Mapping[bytes, bytes], known: KnownLaunch = no_launch
) -> Result:
    """Read one stream entry; a condemned pod's end takes the cause it was condemned for."""
    try:
        event = PodEvent.decode(fields.get(b"event", b""), known)
    except (MessageError, NewerSchemaError) as error:
        return Result(entry.decode(), None, str(error))
    return Result(entry.decode(), with_verdict(event, fields.get(b"condemned")))


def with_verdict(event: PodEvent, condemned: bytes | None) -> PodEvent:
    """The event of a condemned pod with the cause that it was condemned for."""
    if condemned is None or event.cause not in BY_STOPPING:
        return event
    verdict = orjson.loads(condemned)
    return event.because(Cause(verdict["cause"]), verdict["message"])


class ResultStream:
    """The one reader of an executor's result stream; its cursor lives in memory.

    Args:
        client: connection to Redis.
        key: full name of the stream.
        known: see `PodEvent.decode`.
    """

    def __init__(self, client: redis.Redis, key: str, known: KnownLaunch = no_launch) -> None:
        self._client = client
        self._key = key
        self._known = known
        self._cursor = "0"
        self._spent: list[str] = []

    def read(self, count: int) -> list[Result]:
        """Up to `count` entries that were not read before; never waits. Deletes what is spent.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        commands: list[Command] = [("XREAD", "COUNT", count, "STREAMS", self._key, self._cursor)]
        if self._spent:
            commands.insert(0, ("XDEL", self._key, *self._spent))
        replies = told(self._client, commands)
        self._spent = []
        # RESP2 has a list of names and entries here, RESP3 a map.
        results = [
            read_result(entry, _pairs(fields), self._known)
            for entries in dict(replies[-1] or ()).values()
            for entry, fields in entries
        ]
        if results:
            self._cursor = results[-1].entry
        return results

    def rewind(self) -> None:
        """Read from the beginning again; what is spent is found to be so once more."""
        self._cursor = "0"
        self._spent = []

    def discard(self, entries: Iterable[str]) -> None:
        """These say nothing new: the next `read` or `flush` deletes them."""
        self._spent += entries

    def flush(self) -> None:
        """Delete what is spent.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        if self._spent:
            with availability():
                self._client.xdel(self._key, *self._spent)
            self._spent = []

    def remove(self) -> None:
        """Delete the stream.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with availability():
            self._client.delete(self._key)


def _pairs(fields: Iterable[bytes]) -> dict[bytes, bytes]:
    """A map of what Redis tells as name, value, name, value."""
    one_by_one = iter(fields)
    return dict(zip(one_by_one, one_by_one, strict=True))


@dataclass(frozen=True, slots=True)
class WatchProgress:
    """How far the leading watcher is; times in ms by Redis' clock, 0 for never.

    Attributes:
        checkpoint: resource version up to which everything was applied; None for none.
        generation: counts how often the server's resource version fell.
        listed: resource version of the last complete list.
        synced_at: when that list was complete; 0 while none is.
        progress: when the watch last proved to be up to date.
        leader: name of the leading watcher.
    """

    checkpoint: int | None = None
    generation: int = 0
    listed: int = 0
    synced_at: int = 0
    progress: int = 0
    leader: str = ""

    @property
    def complete_at(self) -> int:
        """Until when the picture is complete: it proves absence up to then."""
        return self.progress if self.synced_at else 0

    @classmethod
    def from_hash(cls, fields: Mapping[bytes, bytes]) -> WatchProgress:
        """Read what HGETALL gives."""
        checkpoint = fields.get(b"checkpoint")
        return cls(
            checkpoint=None if checkpoint is None else int(checkpoint),
            generation=int(fields.get(b"generation", 0)),
            listed=int(fields.get(b"listed", 0)),
            synced_at=int(fields.get(b"synced_at", 0)),
            progress=int(fields.get(b"progress", 0)),
            leader=fields.get(b"leader", b"").decode(),
        )


def read_watch(client: redis.Redis, key: str) -> WatchProgress:
    """The leading watcher's progress.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with availability():
        fields: Any = client.hgetall(key)
    return WatchProgress.from_hash(fields)


async def read_watch_async(client: redis.asyncio.Redis, key: str) -> WatchProgress:
    """The same on an event loop."""
    with availability():
        fields: Any = await client.hgetall(key)
    return WatchProgress.from_hash(fields)


def read_picture(client: redis.Redis, key: str) -> dict[str, PodEvent]:
    """The picture of existing pods: name → last event; unreadable ones are left out.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with availability():
        fields: Any = client.hgetall(key)
    return _picture(fields)


async def read_picture_async(client: redis.asyncio.Redis, key: str) -> dict[str, PodEvent]:
    """The same on an event loop."""
    with availability():
        fields: Any = await client.hgetall(key)
    return _picture(fields)


def _picture(fields: Mapping[bytes, bytes]) -> dict[str, PodEvent]:
    picture = {}
    for name, data in fields.items():
        try:
            picture[name.decode()] = PodEvent.decode(data)
        except MessageError:
            continue
    return picture
