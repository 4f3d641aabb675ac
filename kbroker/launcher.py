"""The launcher: takes launch and delete messages, asks the Kubernetes API, records what came of it.

It keeps nothing: what a killed launcher had in hand is delivered to another one,
and names, permissions and preconditions make doing it twice harmless.

One turn for a batch: read the messages, ask for all permissions in one pipeline,
create the pods concurrently, record all outcomes in one pipeline. Each message
has its own outcome; none suffers from its neighbours.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import redis.asyncio

from kbroker import pod_creation, pod_removal, secret_creation
from kbroker.api_calls import ApiCalls
from kbroker.errors import BrokerUnavailableError, NewerSchemaError
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.launcher_identity import Cluster, LauncherIdentity
from kbroker.launcher_record import LauncherRecords
from kbroker.manifests import Manifests
from kbroker.message import DeleteMessage, LaunchMessage, SecretMessage
from kbroker.permission import Permissions
from kbroker.pod_creation import PodCreation
from kbroker.pod_removal import PodRemoval
from kbroker.queue_entry import QueueEntry, Unfinished
from kbroker.redis_client import Call, run_async
from kbroker.rooms import Rooms
from kbroker.secret_creation import SECRET_ITEM, SecretCreation
from kbroker.service_account_key import read_keys
from kbroker.shared_pace import SharedPace
from kbroker.work_item import (
    Bury,
    Leave,
    Outcome,
    Park,
    WorkItem,
    read_launch,
    read_removal,
    read_secret,
    room_settled,
    set_back,
    settled,
)

log = logging.getLogger(__name__)

M = TypeVar("M", LaunchMessage, DeleteMessage, SecretMessage)

_DRAIN_LIMIT = 100
_LAUNCH_ITEM = "launch:"
# While the launcher is refused its consumers are paused; a call that holds its slot
# for longer than they take to notice keeps them from reading the whole queue meanwhile.
_NOT_READY_PAUSE = 2.0


class Api(pod_creation.Pods, pod_removal.Pods, secret_creation.Secrets, Cluster, Protocol):
    """All that a launcher asks of the API server; see `KubeClient`."""


class Launcher:
    """Carries out what executors ask for.

    Args:
        kube: the API server.
        client: connection to Redis, of the same event loop.
        config: the configuration.
        ready_changed: called with whether the API server accepts the launcher, when
            that changes; while it does not, nothing should be handed to it.
        rng: for the jitter.
        monotonic: seconds that never jump.
        sleep: waits for some seconds.

    Attributes:
        pace: how fast the API server may be asked.

    Raises:
        TemplateError: the configured pod template is not usable.
    """

    def __init__(
        self,
        kube: Api,
        client: redis.asyncio.Redis,
        config: KubeConfig,
        *,
        ready_changed: Callable[[bool], None] = lambda _ready: None,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        kubernetes, settings = config.kubernetes, config.launcher
        keys = RedisKeys(config.broker.prefix)
        self._client = client
        self._settings = settings
        self._cluster = kubernetes.cluster
        self._max_failures = config.broker.max_deliveries
        self._records = LauncherRecords(keys, config.broker.record_ttl, kubernetes.create_window)
        self._rooms = Rooms(keys, kubernetes.cluster)
        name = f"{socket.gethostname()}-{os.getpid()}"
        self._rng = rng or random.Random()
        self._monotonic = monotonic
        self.pace = SharedPace(
            client,
            keys,
            kubernetes.cluster,
            settings.retry_after_max,
            settings.max_create_rate,
            rng=self._rng,
            monotonic=monotonic,
            sleep=sleep,
        )
        self._identity = LauncherIdentity(
            kube,
            kubernetes.namespace,
            settings,
            rng=self._rng,
            changed=ready_changed,
            sleep=sleep,
        )
        calls = ApiCalls(
            settings,
            kubernetes.retry_budget,
            kubernetes.request_timeout,
            kubernetes.pool_size,
            pace=self.pace,
            identity=self._identity,
            rng=self._rng,
            monotonic=monotonic,
            sleep=sleep,
        )
        self._permissions = Permissions(
            client, self._records, self._rooms, self.pace, name, monotonic
        )
        self._creation = PodCreation(
            kube,
            calls,
            Manifests(kubernetes),
            settings,
            ask=self._permissions.ask,
            rng=self._rng,
        )
        self._removal = PodRemoval(kube, calls, settings, rng=self._rng)
        keys_to_put = read_keys(kubernetes.gcp_service_account_keys)
        self._secrets = SecretCreation(kube, calls, keys_to_put, settings, rng=self._rng)
        self._sleep = sleep
        self._newer: set[str] = set()
        self._parked_until = monotonic()

    @property
    def ready(self) -> bool:
        """Whether the API server accepts the launcher."""
        return not self.refusal

    @property
    def refusal(self) -> str:
        """Why the API server does not accept the launcher; "" while it does."""
        return self._identity.refusal

    @property
    def newer_schema(self) -> int:
        """How many messages were left to newer launchers."""
        return len(self._newer)

    @property
    def parked_until(self) -> float:
        """Monotonic seconds at which the last message that this launcher parked is due."""
        return self._parked_until

    async def launch(self, entries: Sequence[QueueEntry]) -> None:
        """Create the pods of these launch messages.

        Raises:
            Unfinished: some are to be delivered again; all others are done.
            BrokerUnavailableError: Redis is away; all are to be delivered again.
        """
        await self._work(
            [WorkItem.from_entry(entry) for entry in entries], read_launch, self._launches
        )

    async def delete(self, entries: Sequence[QueueEntry]) -> None:
        """Remove the pods of these delete messages; raises as `launch`."""
        await self._work(
            [WorkItem.from_entry(entry) for entry in entries], read_removal, self._removals
        )

    async def put_secrets(self, entries: Sequence[QueueEntry]) -> None:
        """Create or replace the Secrets of these messages; raises as `launch`."""
        await self._work(
            [WorkItem.from_entry(entry) for entry in entries], read_secret, self._secret_jobs
        )

    async def drain(self) -> int:
        """Work on the parked messages that are due; returns how many there were.

        Raises:
            BrokerUnavailableError: Redis is away; they fall due again.
        """
        if not self.ready:
            return 0
        call = self._records.drain(self._cluster, _DRAIN_LIMIT, self._settings.park_lease)
        due: list[tuple[str, bytes]]
        _, due = await run_async(self._client, [self._rooms.let_out(), call])
        items = [WorkItem.from_parked(name, payload) for name, payload in due]
        launches = [item for item in items if item.id.startswith(_LAUNCH_ITEM)]
        secrets = [item for item in items if item.id.startswith(SECRET_ITEM)]
        removals = [i for i in items if not i.id.startswith((_LAUNCH_ITEM, SECRET_ITEM))]
        await asyncio.gather(
            self._work(launches, read_launch, self._launches),
            self._work(secrets, read_secret, self._secret_jobs),
            self._work(removals, read_removal, self._removals),
        )
        return len(items)

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self._identity.close()
        await self.pace.close()

    # A batch.

    async def _work(
        self,
        items: list[WorkItem],
        read: Callable[[WorkItem, str], M | Bury],
        work: Callable[[list[tuple[WorkItem, M]]], Awaitable[Sequence[Outcome | BaseException]]],
    ) -> None:
        if not items:
            return
        outcomes: dict[str, Outcome | BaseException] = {}
        jobs: list[tuple[WorkItem, M]] = []
        for item in items:
            message = self._read(item, read)
            if isinstance(message, Outcome):
                outcomes[item.id] = message
            else:
                jobs.append((item, message))
        for (item, _), outcome in zip(jobs, await work(jobs), strict=True):
            outcomes[item.id] = outcome
        await self._record(items, outcomes)

    async def _record(
        self, items: list[WorkItem], outcomes: Mapping[str, Outcome | BaseException]
    ) -> None:
        retry: list[str] = []
        later: list[str] = []
        calls: list[Call[Any]] = []
        rooms: list[Call[Any]] = []  # after the others, so that those of one kind go together
        for item in items:
            outcome = self._outcome(item, outcomes[item.id])
            if outcome is None:
                retry.append(item.id)
                continue
            calls += settled(self._records, self._cluster, item, outcome)
            rooms += room_settled(self._rooms, outcome)
            match outcome:
                case Leave():
                    later.append(item.id)
                case Park():
                    due = self._monotonic() + outcome.delay
                    self._parked_until = max(self._parked_until, due)
                case Bury():
                    log.error("%s is dead: %s", item.id, outcome.reason, extra={"action": "dead"})
        await run_async(self._client, calls + rooms)
        counts = Counter(type(outcomes[item.id]).__name__.lower() for item in items)
        said = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        log.info("%d messages: %s", len(items), said, extra={"action": "batch", **counts})
        if later and not self.ready:
            await self._sleep(_NOT_READY_PAUSE)
        if retry or later:
            raise Unfinished(retry=retry, later=later)

    def _outcome(self, item: WorkItem, outcome: Outcome | BaseException) -> Outcome | None:
        """The outcome to record; None for an entry that is to be delivered again."""
        if not isinstance(outcome, BaseException):
            return outcome
        if not isinstance(outcome, Exception) or isinstance(outcome, BrokerUnavailableError):
            raise outcome
        log.error(
            "%s failed in an unexpected way",
            item.id,
            exc_info=outcome,
            extra={"action": "unexpected"},
        )
        if item.entry is not None:
            return None
        limit, delay = self._max_failures, self._settings.park_max
        return set_back(item, self._cluster, limit, delay, outcome)

    def _read(self, item: WorkItem, read: Callable[[WorkItem, str], M | Bury]) -> M | Outcome:
        try:
            return read(item, self._cluster)
        except NewerSchemaError as error:
            if item.id not in self._newer:
                self._newer.add(item.id)
                log.error(
                    "%s is left to others: %s", item.id, error, extra={"action": "newer-schema"}
                )
        if item.entry is not None:
            return Leave()
        return Park(item.id, self._settings.park_max, item.parking)

    async def _launches(
        self, jobs: list[tuple[WorkItem, LaunchMessage]]
    ) -> Sequence[Outcome | BaseException]:
        if not self.ready:
            now = await self._permissions.now()
            why = self._identity.refusal
            return [self._creation.not_ready(*job, now, why) for job in jobs]
        permissions = await self._permissions.ask_all(
            [(message, item.waited_as) for item, message in jobs]
        )
        return await asyncio.gather(
            *(self._creation.launch(*job, p) for job, p in zip(jobs, permissions, strict=True)),
            return_exceptions=True,
        )

    async def _removals(
        self, jobs: list[tuple[WorkItem, DeleteMessage]]
    ) -> Sequence[Outcome | BaseException]:
        now = await self._permissions.now()
        if not self.ready:
            return [self._removal.not_ready(*job, now) for job in jobs]
        return await asyncio.gather(
            *(self._removal.remove(*job, now) for job in jobs), return_exceptions=True
        )

    async def _secret_jobs(
        self, jobs: list[tuple[WorkItem, SecretMessage]]
    ) -> Sequence[Outcome | BaseException]:
        now = await self._permissions.now()
        if not self.ready:
            return [self._secrets.not_ready(*job, now) for job in jobs]
        return await asyncio.gather(
            *(self._secrets.put(*job, now) for job in jobs), return_exceptions=True
        )
