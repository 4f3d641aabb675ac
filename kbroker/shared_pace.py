"""The pace that all launchers of one API server obey, shared through Redis.

When the API server tells one launcher to come back later, it means all of them:
each would be answered the same, and asking costs the server what it lacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from kbroker import pace
from kbroker.keys import RedisKeys
from kbroker.redis_client import Call, run_async, script

# A pause that ends this much later than a known one is not worth telling, in seconds.
_WORTH_TELLING = 0.1


@dataclass(frozen=True, slots=True)
class Moment:
    """What Redis says; both in ms by its clock.

    Attributes:
        not_before: until when nobody is to ask the API server for a new pod.
        now: the present.
    """

    not_before: int
    now: int

    @property
    def pause(self) -> float:
        """Seconds to wait."""
        return pace.pause(self.not_before, self.now)


class SharedPace:
    """One process's view of a cluster's pace.

    Args:
        client: connection to Redis.
        keys: names of the keys.
        cluster: name of the cluster.
        longest: longest pause that is obeyed, in seconds.
        monotonic: seconds that never jump.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: RedisKeys,
        cluster: str,
        longest: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._key = keys.pace(cluster)
        self._longest = longest
        self._monotonic = monotonic
        self._until = 0.0

    @property
    def pause(self) -> float:
        """Seconds to wait before the next create; 0 for none."""
        return max(0.0, self._until - self._monotonic())

    def look(self) -> Call[Moment]:
        """Asks for the shared pace; belongs into a pipeline that is sent anyway."""
        return self._call(0.0)

    def heard(self, moment: Moment) -> None:
        """Take over what `look` answered."""
        self._until = max(self._until, self._monotonic() + moment.pause)

    async def slow_down(self, seconds: float) -> None:
        """The API server asked for this pause: keep it, and tell the others.

        Raises:
            BrokerUnavailableError: Redis is away; this process keeps the pause anyway.
        """
        seconds = min(seconds, self._longest)
        known = self.pause
        self._until = max(self._until, self._monotonic() + seconds)
        if seconds > known + _WORTH_TELLING:
            await run_async(self._client, [self._call(seconds)])

    def _call(self, seconds: float) -> Call[Moment]:
        longest = int(self._longest * 1000)
        return Call(script("pace"), (self._key,), (int(seconds * 1000), longest), _moment)


def _moment(reply: Any) -> Moment:
    return Moment(int(reply[0]), int(reply[1]))
