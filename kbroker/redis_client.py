"""Connections to Redis, and Lua scripts run in pipelines.

The one place that knows how redis-py fails: everything that means "Redis is not
usable now" becomes a BrokerUnavailableError, so that roles never import redis.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

import redis
import redis.asyncio
from hiredis import pack_command
from redis import exceptions

from kbroker.errors import BrokerUnavailableError, ConfigError
from kbroker.patience import Patience, patient
from kbroker.spare_connection import SparePool
from kbroker.value import Value

T = TypeVar("T")
Argument = str | bytes | int | float
Command = tuple[Any, ...]  # of Arguments

AWAY = (
    exceptions.AuthenticationError,
    exceptions.BusyLoadingError,
    exceptions.ClusterDownError,  # with MASTERDOWN
    exceptions.ConnectionError,
    exceptions.NoPermissionError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.TimeoutError,
    exceptions.TryAgainError,
)

# Refusals that end by themselves or by an operator's hand, and have no class of their own: a
# script runs for long, a snapshot could not be saved, there are too few replicas. Servers before
# Redis 7 put the code of what a script was refused behind "-", inside a general error;
# redis-py shows a pipeline's error as it would a tuple.
_REFUSAL = re.compile(
    r"(?:^|: ?|-|\(')(?:BUSY|UNKILLABLE|MISCONF|NOREPLICAS|NOPERM|OOM|READONLY|MASTERDOWN|LOADING) "
)


# Nobody else is served while a batch of so many calls runs, for some milliseconds.
_AT_ONCE = 50


def place(url: str) -> str:
    """A Redis URL without its credentials, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def connect(url: str, timeout: float, patience: Patience | None = None) -> redis.Redis:
    """A client that waits `timeout` seconds for an answer at most, and asks once.

    Args:
        url: of the server.
        timeout: in seconds.
        patience: decides instead of `timeout`.

    Raises:
        ConfigError: the URL is not a Redis URL.
    """
    try:
        pool = SparePool.from_url(url, retry=None, **_options(timeout))
    except ValueError as error:
        raise _not_a_url(url, error) from None
    client = redis.Redis.from_pool(pool)
    if patience is not None:
        patient(client, patience)
    return client


def connect_async(url: str, timeout: float) -> redis.asyncio.Redis:
    """The same for an event loop.

    Raises:
        ConfigError: the URL is not a Redis URL.
    """
    try:
        return redis.asyncio.Redis.from_url(url, **_options(timeout))
    except ValueError as error:
        raise _not_a_url(url, error) from None


def _options(timeout: float) -> dict[str, Any]:
    # One protocol everywhere: replies of streams have another shape in RESP3.
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout, "protocol": 2}


def _not_a_url(url: str, error: Exception) -> ConfigError:
    return ConfigError(f"broker.url: {place(url)!r} is not a Redis URL: {error}")


@contextmanager
def availability() -> Iterator[None]:
    """Turn redis-py's ways of being away into one error.

    Raises:
        BrokerUnavailableError: Redis does not answer or refuses to work now.
    """
    try:
        yield
    except AWAY as error:
        raise BrokerUnavailableError(f"Redis is not available: {error}") from error
    except exceptions.ResponseError as error:
        if not _REFUSAL.search(str(error)):
            raise
        raise BrokerUnavailableError(f"Redis is not available: {error}") from error


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script of kbroker, with what all of them share around it."""

    name: str
    source: str = field(repr=False)
    sha: str


@cache
def script(name: str) -> Script:
    """The script `lua/<name>.lua`, as `lua/batch.lua` runs it: once for each of many calls."""
    prelude, body, batch = (_lua(part) for part in ("prelude", name, "batch"))
    source = f"{prelude}\nlocal function step(KEYS, ARGV)\n{body}\nend\n{batch}"
    return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


def _lua(name: str) -> str:
    return (files("kbroker") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


class Call(Value, Generic[T], frozen=True):
    """One run of a script: what goes in, and how to read what comes out."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"args"})

    script: Script
    keys: tuple[str, ...]
    args: tuple[Argument, ...]
    read: Callable[[Any], T]

    def like(self, other: Call[Any]) -> bool:
        """Whether both can go together."""
        return (
            self.script is other.script
            and len(self.keys) == len(other.keys)
            and len(self.args) == len(other.args)
        )


def run(client: redis.Redis, calls: Sequence[Call[Any]]) -> list[Any]:
    """Run calls in one pipeline and read their replies, in order.

    Raises:
        BrokerUnavailableError: Redis is away; some calls may have been carried out.
    """
    if not calls:
        return []
    batches = _batches(calls)
    with availability():
        replies = _exchange(client, [_command(batch) for batch in batches])
        again = _unknown(replies)
        if again:
            _fill(replies, again, _exchange(client, _anew([batches[i] for i in again])))
        return _read(batches, replies)


async def run_async(client: redis.asyncio.Redis, calls: Sequence[Call[Any]]) -> list[Any]:
    """Run calls in one pipeline and read their replies, in order.

    Raises:
        BrokerUnavailableError: Redis is away; some calls may have been carried out.
    """
    if not calls:
        return []
    batches = _batches(calls)
    with availability():
        replies = await _exchange_async(client, [_command(batch) for batch in batches])
        again = _unknown(replies)
        if again:
            fresh = await _exchange_async(client, _anew([batches[i] for i in again]))
            _fill(replies, again, fresh)
        return _read(batches, replies)


def _exchange(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """Send commands together; their replies, in order, refusals among them.

    A pipeline of redis-py does the same at three times the cost.
    """
    packed = [pack_command(command) for command in commands]
    pool: Any = client.connection_pool
    connection = pool.get_connection()

    def talk() -> list[Any]:
        connection.send_packed_command(packed)
        return [_reply(connection) for _ in packed]

    try:
        replies: list[Any] = connection.retry.call_with_retry(
            talk, lambda _error: connection.disconnect()
        )
    except BaseException:
        # Interrupted, too: what is still to come would be taken for the next replies.
        connection.disconnect()
        raise
    finally:
        pool.release(connection)
    return replies


def told(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """Send commands together; their replies, in order.

    Raises:
        BrokerUnavailableError: Redis is away; some may have been carried out.
    """
    if not commands:
        return []
    with availability():
        replies = _exchange(client, commands)
        _refuse(replies)
    return replies


def _refuse(replies: Iterable[Any]) -> None:
    """Raise the first refusal among replies."""
    for reply in replies:
        if isinstance(reply, exceptions.RedisError):
            raise reply


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except exceptions.ResponseError as refusal:
        return refusal


async def _exchange_async(client: redis.asyncio.Redis, commands: Sequence[Command]) -> list[Any]:
    """The same on an event loop."""
    packed = [pack_command(command) for command in commands]
    pool: Any = client.connection_pool
    connection = await pool.get_connection()

    async def talk() -> list[Any]:
        await connection.send_packed_command(packed)
        return [await _reply_async(connection) for _ in packed]

    try:
        replies: list[Any] = await connection.retry.call_with_retry(
            talk, lambda _error: connection.disconnect()
        )
    except BaseException:
        await connection.disconnect(nowait=True)  # cancelled, too
        raise
    finally:
        await pool.release(connection)
    return replies


async def _reply_async(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except exceptions.ResponseError as refusal:
        return refusal


def _batches(calls: Sequence[Call[Any]]) -> list[list[Call[Any]]]:
    """Neighbours that can go together do: a command costs either side more than a call."""
    made = [[calls[0]]]
    for call in calls[1:]:
        if len(made[-1]) < _AT_ONCE and call.like(made[-1][0]):
            made[-1].append(call)
        else:
            made.append([call])
    return made


def _command(calls: Sequence[Call[Any]]) -> Command:
    """The command that carries out calls that can go together."""
    one = calls[0]
    command: list[Argument] = ["EVALSHA", one.script.sha, len(one.keys) * len(calls)]
    for call in calls:
        command += call.keys
    command += (len(calls), len(one.args))
    for call in calls:
        command += call.args
    return tuple(command)


def _anew(batches: Sequence[list[Call[Any]]]) -> list[Command]:
    """Commands that load the scripts that Redis does not know, and those that it refused."""
    sources = {calls[0].script.source for calls in batches}
    return [*(("SCRIPT", "LOAD", source) for source in sources), *map(_command, batches)]


def _unknown(replies: Sequence[Any]) -> list[int]:
    return [i for i, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]


def _fill(replies: list[Any], positions: list[int], fresh: list[Any]) -> None:
    for position, reply in zip(positions, fresh[-len(positions) :], strict=True):
        replies[position] = reply


def _read(batches: Sequence[list[Call[Any]]], replies: Sequence[Any]) -> list[Any]:
    _refuse(replies)
    for reply in replies:
        if reply[1]:
            raise exceptions.ResponseError(reply[1].decode())
    return [
        call.read(answer)
        for calls, (answers, _) in zip(batches, replies, strict=True)
        for call, answer in zip(calls, answers, strict=True)
    ]
