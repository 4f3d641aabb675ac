"""One leader per cluster and namespace watches; the others stand by and take over.

A term of leadership has its own random token, its own watcher and its own view of
the pods: whatever was under way in an earlier term finds that its token holds no
lease, and writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any

import redis.asyncio

from kbroker.dead_executors import DeadExecutors
from kbroker.errors import BrokerUnavailableError, LeaseLostError
from kbroker.event_publisher import EventPublisher
from kbroker.keys import RedisKeys
from kbroker.kube_client import KubeClient
from kbroker.kube_config import KubeConfig
from kbroker.lease import AsyncLease, LeaseState
from kbroker.pod_checks import PodChecks
from kbroker.redis_client import availability
from kbroker.watcher import KubernetesJobWatcher
from kbroker.watcher_record import WatcherRecords

log = logging.getLogger(__name__)

# How long before the lease's end it is renewed, and how often a standby looks: every third.
_PART = 3
_SOON = 0.01


class WatchLeader:
    """Leads the watch of one namespace whenever nobody else does.

    Args:
        config: the configuration.
        kube: the API server.
        client: connection to Redis.
        name: this watcher's name.
        rng: for jitter.

    Attributes:
        leading: whether this one leads now.
    """

    def __init__(
        self,
        config: KubeConfig,
        kube: KubeClient,
        client: redis.asyncio.Redis,
        name: str,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self.config = config
        self.name = name
        self.leading = False
        self._kube = kube
        self._client = client
        self._rng = rng or random.Random()
        self._place = (config.kubernetes.cluster, config.kubernetes.namespace)
        self._keys = RedisKeys(config.broker.prefix)
        self._records = WatcherRecords(
            self._keys, config.broker.record_ttl, config.kubernetes.create_window
        )
        self._lease: AsyncLease | None = None
        self._failures = 0

    async def run(self) -> None:
        """Stand by and lead, by turns, until cancelled; gives the lease up at the end."""
        try:
            while True:
                await self._turn(once=False)
        finally:
            await self._leave()

    async def list_once(self) -> None:
        """Become the leader, list and publish everything once, and give the lease up.

        Raises:
            ApiError: the API server does not answer, or refuses.
        """
        try:
            while not await self._turn(once=True):
                pass
        finally:
            await self._leave()

    async def _turn(self, *, once: bool) -> bool:
        """Acquire the lease and lead until it ends; whether that succeeded."""
        try:
            lease = await self._acquire()
            await (self._list(lease) if once else self._lead(lease))
        except LeaseLostError as error:
            log.warning("the lease is lost: %s", error, extra={"action": "lease_lost"})
        except BrokerUnavailableError as error:
            await self._back_off(error)
        else:
            return True
        finally:
            self.leading = False
        return False

    # Standing by.

    async def _acquire(self) -> AsyncLease:
        """Wait until the lease is ours."""
        await self._leave_quietly()
        lease = AsyncLease(self._client, self._keys.lease(*self._place), self.config.watcher.lease)
        self._lease = lease
        said = False
        while not await lease.acquire():
            if not said:
                said = True
                self._say("stands by for", "standby")
            await asyncio.sleep(await self._until_look(lease))
        self._failures = 0
        self.leading = True
        self._say("leads the watch of", "leader")
        return lease

    async def _until_look(self, lease: AsyncLease) -> float:
        """Until the lease may end, but at most a third of its life."""
        with availability():
            left = await self._client.pttl(lease.key)
        look = lease.ttl / _PART * self._rng.uniform(0.5, 1)
        return max(_SOON, min(look, left / 1000 + self._rng.uniform(0, lease.ttl / 50)))

    def _say(self, does: str, action: str) -> None:
        cluster, namespace = self._place
        log.info(
            "watcher %s %s %s/%s", self.name, does, cluster, namespace, extra={"action": action}
        )

    # Leading.

    async def _lead(self, lease: AsyncLease) -> None:
        """Watch, renew and check, until one of them ends; raises what ended it."""
        publisher = self._publisher(lease)
        progress = await publisher.progress()
        # Only a complete picture can be resumed; otherwise everything is listed.
        version = progress.checkpoint if progress.synced_at else None
        watcher = self._watcher(publisher, version)
        checks = PodChecks(watcher.table, publisher, self.config.watcher)
        dead = DeadExecutors(publisher, self.config.watcher)
        await _first_of(self._renew(lease), watcher.watch(), self._check(checks, dead))

    async def _list(self, lease: AsyncLease) -> None:
        watcher = self._watcher(self._publisher(lease), None)
        await _first_of(self._renew(lease), _value_of(watcher.list_once(self._kube)))

    def _publisher(self, lease: AsyncLease) -> EventPublisher:
        return EventPublisher(
            self._client, self._records, self._place, token=lease.token, leader=self.name
        )

    def _watcher(self, publisher: EventPublisher, version: int | None) -> KubernetesJobWatcher:
        return KubernetesJobWatcher(
            self.config.kubernetes.namespace,
            publisher,
            None if version is None else str(version),
            self.name,
            config=self.config,
            kube=self._kube,
        )

    async def _renew(self, lease: AsyncLease) -> None:
        while True:
            await asyncio.sleep(lease.ttl / _PART)
            state = await lease.renew()
            if state is not LeaseState.HELD:
                raise LeaseLostError(
                    "it had run out, or Redis lost its data"
                    if state is LeaseState.MISSING
                    else "another watcher holds it"
                )

    async def _check(self, *checks: PodChecks | DeadExecutors) -> None:
        while True:
            await asyncio.sleep(self.config.watcher.check_interval)
            for check in checks:
                await check.check()

    # Leaving.

    async def _leave(self) -> None:
        """Give the lease up, so that a standby need not wait for its end."""
        try:
            await self._leave_quietly()
        except BrokerUnavailableError as error:
            log.warning("left without saying goodbye: %s", error, extra={"action": "leave"})

    async def _leave_quietly(self) -> None:
        lease = self._lease
        if lease is not None:
            await lease.release()
            self._lease = None

    async def _back_off(self, error: BrokerUnavailableError) -> None:
        if not self._failures:
            log.warning("%s; trying again", error, extra={"action": "redis_away"})
        settings = self.config.watcher
        limit = min(settings.lease / _PART, settings.backoff_base * 2.0 ** min(self._failures, 30))
        self._failures += 1
        await asyncio.sleep(max(_SOON, self._rng.uniform(0, limit)))


async def _first_of(*duties: Coroutine[Any, Any, None]) -> None:
    """Run these until the first ends, end the others, and raise what it raised."""
    tasks = [asyncio.ensure_future(duty) for duty in duties]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        left = set(tasks)
        while left:
            # More than once: a library may swallow a cancellation that races with its reply.
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.1)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # asyncio prints those that nobody has asked for
    for task in tasks:
        if task in done:
            task.result()


async def _value_of(duty: Coroutine[Any, Any, Any]) -> None:
    await duty
