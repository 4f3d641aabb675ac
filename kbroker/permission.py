"""Permission to create a pod, asked of the launch record, on Redis' clock and on ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import redis.asyncio

from kbroker.launch_reply import Granted, Refused
from kbroker.launcher_record import LauncherRecords
from kbroker.message import LaunchMessage
from kbroker.redis_client import Call, run_async
from kbroker.rooms import Rooms
from kbroker.shared_pace import Moment, SharedPace
from kbroker.value import Value


class Permission(Value, frozen=True):
    """What a grant allows, on both clocks.

    Attributes:
        create_before: until when, ms by Redis' clock; stands in the pod.
        now: Redis' clock when it was granted, ms.
        heard: this process's monotonic clock when the grant arrived.
        deadline: this process's monotonic clock when the permission ends; too early
            rather than too late, for it counts from before the grant was asked for.
        full: why there was no room in the namespace lately; this launch finds out whether
            there is some now. "" where nothing is known.
    """

    create_before: int
    now: int
    heard: float
    deadline: float
    full: str = ""

    def time(self, monotonic: float) -> int:
        """Redis' clock in ms, too early rather than too late."""
        return self.now + int((monotonic - self.heard) * 1000)


class NoRoom(Value, frozen=True):
    """It would be permitted, but another launch looks for room in its namespace.

    Attributes:
        permission: what was granted.
        why: there is no room, in the API server's words.
    """

    permission: Permission
    why: str


# What is asked for: a launch, and the name under which it was parked ("" if it was not); None
# where its pod may exist, and so has to be looked for whether there is room or not.
Asked = tuple[LaunchMessage, str | None]


class Permissions:
    """Asks for permissions, and hears of the shared pace on the way.

    Args:
        client: connection to Redis.
        records: the launch records.
        rooms: the namespaces without room.
        pace: shared by all launchers of the API server.
        launcher: this launcher's name.
        monotonic: seconds that never jump.

    Every method raises BrokerUnavailableError when Redis is away.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        records: LauncherRecords,
        rooms: Rooms,
        pace: SharedPace,
        launcher: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._records = records
        self._rooms = rooms
        self._pace = pace
        self._launcher = launcher
        self._monotonic = monotonic

    async def ask(self, message: LaunchMessage) -> Permission | Refused:
        """Ask for one launch, whether there is room or not."""
        before = self._monotonic()
        moment, reply = await run_async(self._client, [self._pace.look(), self._grant(message)])
        self._pace.heard(moment)
        return _permission(reply, before, self._monotonic())

    async def ask_all(self, asked: Sequence[Asked]) -> list[Permission | NoRoom | Refused]:
        """Ask for launches in one pipeline; the replies stand in their order."""
        if not asked:
            return []
        places = _places(asked)
        looks = [
            self._rooms.ask(namespace, [asked[n][1] or "" for n in numbers])
            for namespace, numbers in places.items()
        ]
        grants = [self._grant(message) for message, _ in asked]
        before = self._monotonic()
        moment, *replies = await run_async(self._client, [self._pace.look(), *looks, *grants])
        heard = self._monotonic()
        self._pace.heard(moment)
        found: list[Permission | NoRoom | Refused] = [
            _permission(reply, before, heard) for reply in replies[len(looks) :]
        ]
        for full, numbers in zip(replies, places.values(), strict=False):
            if full is not None:
                for number, may in zip(numbers, full.may, strict=True):
                    found[number] = _in_full(found[number], full.why, may)
        return found

    def _grant(self, message: LaunchMessage) -> Call[Granted | Refused]:
        return self._records.grant(
            message.attempt, launcher=self._launcher, expires_at=message.expires_at
        )

    async def now(self) -> int:
        """Redis' clock in ms."""
        moment: Moment = (await run_async(self._client, [self._pace.look()]))[0]
        return moment.now


def _permission(reply: Granted | Refused, before: float, heard: float) -> Permission | Refused:
    if isinstance(reply, Refused):
        return reply
    window = (reply.create_before - reply.now) / 1000
    return Permission(reply.create_before, reply.now, heard, before + window)


def _places(asked: Sequence[Asked]) -> dict[str, list[int]]:
    """Namespace → the positions of those that keep to its queue."""
    places: dict[str, list[int]] = {}
    for number, (message, item) in enumerate(asked):
        if item is not None:
            places.setdefault(message.namespace, []).append(number)
    return places


def _in_full(
    found: Permission | NoRoom | Refused, why: str, may: bool
) -> Permission | NoRoom | Refused:
    if not isinstance(found, Permission):
        return found
    return found.changed(full=why) if may else NoRoom(found, why)
