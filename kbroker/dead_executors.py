"""What executors that are gone for good leave in Redis: streams to read, launches to end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from kbroker.event_publisher import EventPublisher
from kbroker.settings import WatcherSettings

log = logging.getLogger(__name__)

# They are looked for this many times within `orphan_after`.
_LOOKS = 10
_LEAST_OFTEN = 60.0


class DeadExecutors:
    """Has streams removed whose executor has been silent for `watcher.orphan_after`.

    What they said stands in the launch records, for whoever adopts the launches; these expire
    `broker.record_ttl` later.

    Args:
        publisher: writes to Redis.
        settings: the limits.
        monotonic: seconds that never jump.
    """

    def __init__(
        self,
        publisher: EventPublisher,
        settings: WatcherSettings,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._gone_for = settings.orphan_after
        self._monotonic = monotonic
        self._look_at = 0.0

    async def check(self) -> None:
        """Look, when it is time.

        Raises:
            LeaseLostError: the lease is not ours.
            BrokerUnavailableError: Redis is away.
        """
        now = self._monotonic()
        if now < self._look_at:
            return
        self._look_at = now + min(_LEAST_OFTEN, self._gone_for / _LOOKS)
        forgotten = await self._publisher.forget(self._gone_for)
        await self._publisher.abandon(forgotten)
        for executor in forgotten:
            log.info(
                "executor %s has been gone for %g s: its result stream is removed",
                executor,
                self._gone_for,
                extra={"action": "forget", "executor": executor},
            )
