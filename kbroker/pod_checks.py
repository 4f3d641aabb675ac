"""What the leading watcher finds without an event: pods that wait too long, pods without owner."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from kbroker.event import Cause, PodEvent
from kbroker.event_publisher import EventPublisher
from kbroker.pod_status import waiting_verdict
from kbroker.pod_table import PodTable, Seen
from kbroker.settings import WatcherSettings

log = logging.getLogger(__name__)

# A removal that was asked for and did not happen is asked for again.
_ASK_AGAIN = 60.0
# Orphans are looked for this many times within `orphan_after`.
_LOOKS = 10
_LEAST_OFTEN = 60.0


class PodChecks:
    """Judges the pods of a table; asks launchers, by way of Redis, to act.

    `check` and its parts raise LeaseLostError when the lease is not ours, and
    BrokerUnavailableError when Redis is away.

    Args:
        table: the pods that exist.
        publisher: writes to Redis.
        settings: the limits.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        table: PodTable,
        publisher: EventPublisher,
        settings: WatcherSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._publisher = publisher
        self._settings = settings
        self._clock = clock
        self._gone_since: dict[str, float] = {}
        self._reported: set[str] = set()
        self._look_at = 0.0

    async def check(self) -> None:
        """Judge every pod once."""
        await self.condemn()
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + min(_LEAST_OFTEN, self._settings.orphan_after / _LOOKS)
            await self.sweep()

    async def condemn(self) -> None:
        """Have pods stopped that will never start; each once for a cause and version."""
        now = self._clock()
        judged: list[tuple[Seen, tuple[PodEvent, Cause, str]]] = []
        for seen in self._table.pending():
            verdict = waiting_verdict(seen.event, now, seen.since, self._settings)
            if verdict is None:
                continue
            if seen.condemned != (verdict.cause, seen.event.resource_version):
                judged.append((seen, (seen.event, *verdict)))
        replies = await self._publisher.condemn([verdict for _, verdict in judged])
        for (seen, (event, cause, message)), reply in zip(judged, replies, strict=True):
            # Any other answer may be another one next time: the record comes after the pod.
            if reply == "applied":
                seen.condemned = (cause, event.resource_version)
                log.warning(
                    "pod %s will be stopped: %s",
                    event.pod,
                    message,
                    extra={"action": "condemn", "pod": event.pod, "cause": cause.value},
                )

    async def sweep(self) -> None:
        """Have finished pods deleted whose executor is gone for good; report running ones."""
        started = list(self._table.started())
        owners = await self._publisher.owners([(seen.event, seen.executor) for seen in started])
        now = self._clock()
        gone = {owner for owner, alive in owners if owner and not alive}
        self._gone_since = {owner: self._gone_since.get(owner, now) for owner in gone}
        orphans = [
            seen
            for seen, (owner, _) in zip(started, owners, strict=True)
            if owner in gone
            and now - max(self._gone_since[owner], seen.since) >= self._settings.orphan_after
        ]
        await self._delete([seen for seen in orphans if seen.event.final], now)
        self._report([seen.event for seen in orphans if not seen.event.final])

    async def _delete(self, orphans: Sequence[Seen], now: float) -> None:
        due = [seen for seen in orphans if not seen.swept or now - seen.swept >= _ASK_AGAIN]
        reason = f"no executor has owned it for {self._settings.orphan_after:g} s"
        replies = await self._publisher.sweep([(s.event, s.executor) for s in due], reason)
        for seen, reply in zip(due, replies, strict=True):
            if reply == "asked":
                seen.swept = now
                log.warning(
                    "pod %s (%s, last %s) will be deleted: %s",
                    seen.event.pod,
                    seen.event.launch.key,
                    seen.event.state,
                    reason,
                    extra={"action": "sweep", "pod": seen.event.pod},
                )

    def _report(self, orphans: Sequence[PodEvent]) -> None:
        for event in orphans:
            if event.uid not in self._reported:
                log.warning(
                    "pod %s (%s) still runs, and its executor has been gone for %g s",
                    event.pod,
                    event.launch.key,
                    self._settings.orphan_after,
                    extra={"action": "running_orphan", "pod": event.pod},
                )
        self._reported = {event.uid for event in orphans if event.uid is not None}
