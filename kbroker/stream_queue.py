"""One queue on a Redis Stream: entries, deliveries, and who works on what.

Every queue is a stream with one consumer group. An entry stays pending until it
is acknowledged, which also deletes it. Redis' own clock decides when a silent
consumer's entries go to another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from redis.exceptions import ResponseError

from kbroker.errors import BrokerUnavailableError
from kbroker.keys import LAUNCHERS_GROUP
from kbroker.redis_client import Argument, Call, availability, run, script
from kbroker.value import Value

T = TypeVar("T")

# Consumers of processes that are gone are forgotten after this time.
_FORGET_AFTER_MS = 3_600_000

# Idle time that a released entry is given: due for anybody, whatever they wait for.
_RELEASED_MS = 2**31 - 1


class Delivery(Value, frozen=True):
    """One entry as it is handed to this consumer.

    Attributes:
        id: stream id.
        deliveries: how often it was handed out, this time included.
        message: the encoded message; empty when the entry has none.
    """

    id: str
    deliveries: int
    message: bytes


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A queue at one moment.

    Attributes:
        length: entries, handed out or not.
        waiting: entries in nobody's hands: new ones, and those that were given back.
        in_flight: entries handed out and not acknowledged.
        consumers: processes that read the queue.
        oldest_idle_ms: how long the most neglected entry in flight has been silent.
    """

    length: int
    waiting: int
    in_flight: int
    consumers: int
    oldest_idle_ms: int


class StreamQueue:
    """What one consumer does to one queue.

    Args:
        client: connection to Redis; blocking reads need a `socket_timeout` above `block`.
        key: full name of the stream.
        consumer: this consumer's name.

    Every method raises BrokerUnavailableError when Redis is away or refuses, and creates
    the consumer group anew where Redis has lost it.
    """

    def __init__(self, client: redis.Redis, key: str, consumer: str) -> None:
        self.key = key
        self.consumer = consumer
        self._client = client

    def create(self) -> None:
        """Create stream and group; a group that exists stays as it is."""
        with self._usable():
            try:
                self._client.xgroup_create(self.key, LAUNCHERS_GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    def read(self, count: int, block: float) -> list[Delivery]:
        """Up to `count` new entries; waits `block` seconds at most for the first, 0 not at all."""
        reply = self._grouped(
            lambda: self._client.xreadgroup(
                LAUNCHERS_GROUP,
                self.consumer,
                {self.key: ">"},
                count=count,
                block=int(block * 1000) or None,  # 0 would mean: for ever
            )
        )
        if not reply:
            return []
        return [
            Delivery(entry.decode(), 1, fields.get(b"message", b""))
            for entry, fields in reply[0][1]
        ]

    def reclaim(
        self, idle: float, *, limit: int, highest: int, dead: int
    ) -> tuple[list[Delivery], bool]:
        """Take over entries whose consumer has been silent for `idle` seconds.

        Args:
            idle: seconds of silence.
            limit: how many at most.
            highest: entries that were handed out more often are passed over.
            dead: but those handed out more often than this are taken, to be buried.

        Returns:
            The entries, and whether any was passed over.
        """
        arguments = (LAUNCHERS_GROUP, self.consumer, int(idle * 1000), limit, highest, dead)
        return self._run(Call(script("reclaim"), (self.key,), arguments, _reclaimed))

    def acknowledge(self, entries: Sequence[str]) -> None:
        """These are done: they leave the queue."""
        if not entries:
            return
        with self._usable():
            pipe = self._client.pipeline(transaction=False)
            pipe.xack(self.key, LAUNCHERS_GROUP, *entries)
            pipe.xdel(self.key, *entries)
            pipe.execute()

    def renew(self, entries: Iterable[str]) -> None:
        """These are being worked on."""
        self._hold("renew", entries)

    def release(self, entries: Iterable[str]) -> None:
        """These were never begun: anybody may take them at once, and it does not count."""
        self._hold("release", entries)

    def later(self, entries: Iterable[str]) -> None:
        """These cannot be worked on here: due after the usual idle time, not counted."""
        self._hold("later", entries)

    def retire(self, *, closing: bool) -> None:
        """Forget consumers that left nothing behind, this one too when it closes."""
        name = self.consumer if closing else ""
        arguments = (LAUNCHERS_GROUP, _FORGET_AFTER_MS, name)
        self._run(Call(script("retire"), (self.key,), arguments, _nothing))

    def _hold(self, step: str, entries: Iterable[str]) -> None:
        ids = list(entries)
        if ids:
            arguments: tuple[Argument, ...] = (LAUNCHERS_GROUP, self.consumer, step, _RELEASED_MS)
            self._run(Call(script("hold"), (self.key,), (*arguments, *ids), _nothing))

    def _run(self, call: Call[T]) -> T:
        reply: T = self._grouped(lambda: run(self._client, [call])[0])
        return reply

    def _grouped(self, step: Callable[[], Any]) -> Any:
        """Run a step; if the group is lost, which FLUSHALL and restarts do, make it anew."""
        with self._usable():
            try:
                return step()
            except ResponseError as error:
                if "NOGROUP" not in str(error) and "no such key" not in str(error):
                    raise
            self.create()
            return step()

    @contextmanager
    def _usable(self) -> Iterator[None]:
        # A full disk, a missing permission or a key of another type may be put right any
        # time: the worker has to wait for it as for a Redis that is away.
        with availability():
            try:
                yield
            except ResponseError as error:
                raise BrokerUnavailableError(f"Redis refuses: {error}") from error


def queue_stats(client: redis.Redis, key: str) -> QueueStats:
    """A queue now; all zero where it does not exist.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with availability():
        length = int(client.xlen(key))
        try:
            consumers = len(client.xinfo_consumers(key, LAUNCHERS_GROUP))
            count: Any = client.xpending(key, LAUNCHERS_GROUP)
            pending: Any = []
            if count["pending"]:
                pending = client.xpending_range(key, LAUNCHERS_GROUP, "-", "+", count["pending"])
        except ResponseError:
            return QueueStats(length, length, 0, 0, 0)
    silences = [int(entry["time_since_delivered"]) for entry in pending]
    held = [silence for silence in silences if silence < _RELEASED_MS]
    waiting = max(0, length - len(held))
    return QueueStats(length, waiting, len(held), consumers, max(held, default=0))


def _reclaimed(reply: Any) -> tuple[list[Delivery], bool]:
    passed_over, *rest = reply
    deliveries = [
        Delivery(entry.decode(), int(count), message)
        for entry, count, message in zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    ]
    return deliveries, bool(passed_over)


def _nothing(_reply: Any) -> None:
    return None
