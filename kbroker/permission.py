"""Permission to create a pod, asked of the launch record, on Redis' clock and on ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis.asyncio

from kbroker.launch_record import LaunchRecords
from kbroker.launch_reply import Granted, Refused
from kbroker.message import LaunchMessage
from kbroker.redis_client import run_async
from kbroker.shared_pace import Moment, SharedPace


@dataclass(frozen=True, slots=True)
class Permission:
    """What a grant allows, on both clocks.

    Attributes:
        create_before: until when, ms by Redis' clock; stands in the pod.
        now: Redis' clock when it was granted, ms.
        heard: this process's monotonic clock when the grant arrived.
        deadline: this process's monotonic clock when the permission ends; too early
            rather than too late, for it counts from before the grant was asked for.
    """

    create_before: int
    now: int
    heard: float
    deadline: float

    def time(self, monotonic: float) -> int:
        """Redis' clock in ms, too early rather than too late."""
        return self.now + int((monotonic - self.heard) * 1000)


class Permissions:
    """Asks for permissions, and hears of the shared pace on the way.

    Args:
        client: connection to Redis.
        records: the launch records.
        pace: shared by all launchers of the API server.
        launcher: this launcher's name.
        monotonic: seconds that never jump.

    Every method raises BrokerUnavailableError when Redis is away.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        records: LaunchRecords,
        pace: SharedPace,
        launcher: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._records = records
        self._pace = pace
        self._launcher = launcher
        self._monotonic = monotonic

    async def ask(self, message: LaunchMessage) -> Permission | Refused:
        """Ask for one launch."""
        return (await self.ask_all([message]))[0]

    async def ask_all(self, messages: Sequence[LaunchMessage]) -> list[Permission | Refused]:
        """Ask for launches in one pipeline; the replies stand in their order."""
        if not messages:
            return []
        grants = [
            self._records.grant(
                message.attempt, launcher=self._launcher, expires_at=message.expires_at
            )
            for message in messages
        ]
        before = self._monotonic()
        moment, *replies = await run_async(self._client, [self._pace.look(), *grants])
        heard = self._monotonic()
        self._pace.heard(moment)
        return [_permission(reply, before, heard) for reply in replies]

    async def now(self) -> int:
        """Redis' clock in ms."""
        moment: Moment = (await run_async(self._client, [self._pace.look()]))[0]
        return moment.now


def _permission(reply: Granted | Refused, before: float, heard: float) -> Permission | Refused:
    if isinstance(reply, Refused):
        return reply
    window = (reply.create_before - reply.now) / 1000
    return Permission(reply.create_before, reply.now, heard, before + window)
