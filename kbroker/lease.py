"""A lease in Redis: who may write, until when.

The token is random for every holder, so a process that was paused for longer
than the life time finds another token, or none, and knows that it lost.
"""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Any

import redis
import redis.asyncio

from kbroker.redis_client import Call, run, run_async, script


class LeaseState(StrEnum):
    """What stands in Redis, seen from the one who asks."""

    HELD = "held"  # our token
    MISSING = "missing"  # nobody's: expired, released, or Redis lost its data
    TAKEN = "taken"  # another token


class _Terms:
    """The key, token and life time of a lease, and its script calls."""

    def __init__(self, key: str, ttl: float) -> None:
        self.key = key
        self.ttl = ttl
        self.token = secrets.token_hex(16)

    def _step(self, step: str) -> Call[LeaseState]:
        arguments = (step, self.token, int(self.ttl * 1000))
        return Call(script("lease"), (self.key,), arguments, _state)


class Lease(_Terms):
    """A lease for synchronous code.

    Args:
        client: connection to Redis.
        key: full name of the key.
        ttl: life time in seconds.
    """

    def __init__(self, client: redis.Redis, key: str, ttl: float) -> None:
        super().__init__(key, ttl)
        self._client = client

    def acquire(self) -> bool:
        """Take the lease if nobody else holds it.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        return bool(run(self._client, [self._step("acquire")])[0] is LeaseState.HELD)

    def renew(self) -> LeaseState:
        """Extend the lease by its life time, if it is ours.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        state: LeaseState = run(self._client, [self._step("renew")])[0]
        return state

    def release(self) -> None:
        """Give the lease up, if it is ours.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        run(self._client, [self._step("release")])


class AsyncLease(_Terms):
    """A lease for code on an event loop; otherwise as `Lease`."""

    def __init__(self, client: redis.asyncio.Redis, key: str, ttl: float) -> None:
        super().__init__(key, ttl)
        self._client = client

    async def acquire(self) -> bool:
        """Take the lease if nobody else holds it."""
        return bool((await run_async(self._client, [self._step("acquire")]))[0] is LeaseState.HELD)

    async def renew(self) -> LeaseState:
        """Extend the lease by its life time, if it is ours."""
        state: LeaseState = (await run_async(self._client, [self._step("renew")]))[0]
        return state

    async def release(self) -> None:
        """Give the lease up, if it is ours."""
        await run_async(self._client, [self._step("release")])


def _state(reply: Any) -> LeaseState:
    return LeaseState(reply.decode())
