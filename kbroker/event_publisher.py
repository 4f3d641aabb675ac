"""What the leading watcher writes to Redis, and what it reads back; nothing without its lease."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio

from kbroker.errors import BrokerUnavailableError, LeaseLostError
from kbroker.event import Cause, PodEvent
from kbroker.redis_client import Call, availability, run_async, script
from kbroker.result_stream import WatchProgress, read_picture_async, read_watch_async
from kbroker.watcher_record import WatcherRecords

# Bounds the reply of one pipeline; a list of 5,000 pods takes ten.
_AT_ONCE = 500


class EventPublisher:
    """The result-stream publisher: a queue of pod events that `flush` applies in one pipeline.

    Every coroutine raises LeaseLostError when the lease is not ours (nothing was
    written) and BrokerUnavailableError when Redis is away.

    Args:
        client: connection to Redis.
        records: the scripts.
        place: cluster and namespace.
        token: of the watcher's lease.
        leader: the watcher's name.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        records: WatcherRecords,
        place: tuple[str, str],
        *,
        token: str,
        leader: str,
    ) -> None:
        self._client = client
        self._records = records
        self._place = place
        self._token = token
        self._leader = leader
        self._waiting: list[Call[str]] = []
        self._last_put: int | None = None

    def put(self, event: PodEvent, *, gone: bool = False) -> None:
        """Have this event applied at the next `flush`.

        Args:
            event: a pod's state.
            gone: whether the pod does not exist any more.
        """
        self._waiting.append(
            self._records.apply(
                event,
                gone=gone,
                token=self._token,
                leader=self._leader,
                after=self._last_put,
            )
        )
        self._last_put = event.resource_version

    async def flush(self) -> None:
        """Apply what was put, in order; of what follows one that Redis refused, nothing.

        After a failure a new publisher has to go on from the checkpoint.
        """
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _AT_ONCE):
            replies = await run_async(self._client, waiting[start : start + _AT_ONCE])
            if "lease" in replies:
                raise self._lost(replies.count("lease"))
            if "gap" in replies:
                raise BrokerUnavailableError("Redis has lost what was written before")

    async def picture(self) -> dict[str, PodEvent]:
        """The pods that exist as far as Redis knows: name → last event."""
        return await read_picture_async(self._client, self._records.keys.pods(*self._place))

    async def progress(self) -> WatchProgress:
        """How far the last leader came."""
        return await read_watch_async(self._client, self._records.keys.watch(*self._place))

    async def relisting(self, new_generation: bool) -> None:
        """A list begins."""
        await self._step(
            self._records.relisting(
                self._place, token=self._token, leader=self._leader, new_generation=new_generation
            )
        )

    async def synced(self, version: int) -> None:
        """A list of this resource version has been applied whole."""
        await self._step(
            self._records.synced(self._place, version, token=self._token, leader=self._leader)
        )
        self._last_put = version

    async def checkpoint(self, version: int) -> None:
        """Everything up to this resource version has been applied."""
        await self._step(
            self._records.checkpoint(self._place, version, token=self._token, leader=self._leader)
        )
        self._last_put = version

    async def condemn(self, verdicts: Sequence[tuple[PodEvent, Cause, str]]) -> list[str]:
        """Ask launchers to stop these pods, remembering why; replies as `WatcherRecords`.

        Args:
            verdicts: the pod as it was judged, what its failure is to be called, words.
        """
        calls = [self._records.condemn(*verdict, token=self._token) for verdict in verdicts]
        return self._checked(await run_async(self._client, calls))

    async def owners(self, pods: Sequence[tuple[PodEvent, str]]) -> list[tuple[str, bool]]:
        """Whose these pods are, and whether that executor lives.

        Args:
            pods: last event, and the executor that launched it ("" if not known).

        Returns:
            For each the id of the executor ("" if nobody knows) and whether it holds its lease.
        """
        keys = self._records.keys
        pipe = self._client.pipeline(transaction=False)
        for event, _ in pods:
            pipe.hget(keys.task(event.launch.digest), "owner")
        with availability():
            recorded = await pipe.execute()
        owners = [
            launched_by if owner is None else owner.decode()
            for owner, (_, launched_by) in zip(recorded, pods, strict=True)
        ]
        distinct = sorted(set(owners))
        pipe = self._client.pipeline(transaction=False)
        for owner in distinct:
            pipe.exists(keys.executor(owner))
        with availability():
            alive = dict(zip(distinct, await pipe.execute(), strict=True))
        return [(owner, bool(alive[owner])) for owner in owners]

    async def sweep(self, pods: Sequence[tuple[PodEvent, str]], reason: str) -> list[str]:
        """Ask launchers to delete finished pods whose executor is gone for good.

        Args:
            pods: last event, and the executor that launched it.
            reason: why, in words.

        Returns:
            For each "asked", "owned" (an executor has it now) or "unknown".
        """
        calls = [self._sweep(event, launched_by, reason) for event, launched_by in pods]
        return self._checked(await run_async(self._client, calls))

    def _sweep(self, event: PodEvent, launched_by: str, reason: str) -> Call[str]:
        keys = self._records.keys
        return Call(
            script("sweep"),
            (keys.lease(*self._place), keys.task(event.launch.digest)),
            (
                keys.prefix,
                self._token,
                launched_by,
                event.launch.deployment,
                event.cluster,
                event.namespace,
                event.pod,
                event.uid or "",
                reason,
            ),
            lambda reply: str(reply.decode()),
        )

    async def forget(self, gone_for: float) -> list[str]:
        """Remove the result streams of executors that were silent for `gone_for` seconds.

        Returns:
            Those that have none any more.
        """
        keys = self._records.keys
        call: Call[list[Any]] = Call(
            script("forget"),
            (keys.lease(*self._place), keys.executors),
            (keys.prefix, self._token, int(gone_for * 1000), _AT_ONCE),
            list,
        )
        held, *forgotten = (await run_async(self._client, [call]))[0]
        if not held:
            raise self._lost()
        return [executor.decode() for executor in forgotten]

    async def abandon(self, executors: Sequence[str]) -> None:
        """Let the records of these executors' launches expire, and forget their names."""
        cursor: str | None = "0"
        while executors and cursor is not None:
            call = self._records.abandon(
                self._place, executors, token=self._token, cursor=cursor, count=_AT_ONCE
            )
            cursor = (await run_async(self._client, [call]))[0]
            if cursor == "":
                raise self._lost()

    async def _step(self, call: Call[bool]) -> None:
        if not (await run_async(self._client, [call]))[0]:
            raise self._lost()

    def _checked(self, replies: list[Any]) -> list[str]:
        if "lease" in replies:
            raise self._lost(replies.count("lease"))
        return replies

    def _lost(self, refused: int = 1) -> LeaseLostError:
        self._waiting.clear()
        cluster, namespace = self._place
        return LeaseLostError(
            f"another watcher may lead {cluster}/{namespace} now: {refused} writes were refused"
        )
