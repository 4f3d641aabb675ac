"""The launch record: permission to create, and the way every event enters.

One method for each Lua script of `lua/`; a method only builds a `Call`, which
`redis_client.run` or `run_async` executes, any number of them in one pipeline.
Every rule about who may write what is decided inside the scripts, by Redis'
clock, in one atomic step each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from kbroker import launch_reply
from kbroker.event import Cause, PodEvent
from kbroker.keys import RedisKeys
from kbroker.launch_reply import Adopted, Cancelled, Granted, Missing, Published, Refused
from kbroker.message import DeleteMessage, LaunchMessage
from kbroker.redis_client import Call, script
from kbroker.task import Attempt, Launch


class LaunchRecords:
    """Builds the script calls for one prefix.

    Args:
        keys: names of the keys.
        record_ttl: seconds that a closed record is kept.
        create_window: seconds after a grant within which a pod may be created.
    """

    def __init__(self, keys: RedisKeys, record_ttl: float, create_window: float) -> None:
        self.keys = keys
        self._ttl = int(record_ttl * 1000)
        self._window = int(create_window * 1000)

    # The executor's calls: nothing is written unless `token` holds its lease.

    def publish(
        self, token: str, message: LaunchMessage, queue: str, entry: bytes
    ) -> Call[Published | Refused]:
        """Write the record and the queue entry (`message` encoded for `queue`)."""
        attempt = message.attempt
        digest = attempt.launch.digest
        return Call(
            script("publish"),
            (
                self.keys.executor(message.executor_id),
                self.keys.task(digest),
                queue,
                self.keys.tasks,
            ),
            (
                self.keys.prefix,
                token,
                message.executor_id,
                attempt.number,
                entry,
                launch_item(attempt),
                digest,
                _identity(attempt.launch, message.cluster, message.namespace),
                self._window,
            ),
            launch_reply.published,
        )

    def adopt(
        self,
        token: str,
        owner: str,
        attempt: Attempt,
        place: tuple[str, str],
        pod_names: Sequence[str],
        known: PodEvent | None = None,
    ) -> Call[Adopted | Missing | Refused]:
        """Become the owner of a launch whose owner is dead; rewrite a lost record.

        Args:
            token: of the executor's lease.
            owner: the executor's id.
            attempt: the launch, and the newest attempt the caller knows of.
            place: cluster and namespace.
            pod_names: of attempt 1, 2, …, to be looked up in the picture.
            known: the last event the caller knows; stands in for a lost record.
        """
        launch = attempt.launch
        return Call(
            script("adopt"),
            (
                self.keys.executor(owner),
                self.keys.task(launch.digest),
                self.keys.pods(*place),
                self.keys.watch(*place),
                self.keys.tasks,
            ),
            (
                self.keys.prefix,
                token,
                owner,
                launch.digest,
                _identity(launch, *place),
                known.encode() if known is not None and known.uid else b"",
                attempt.number,
                self._window,
                *pod_names,
            ),
            launch_reply.adopted,
        )

    def withdraw(
        self,
        token: str,
        owner: str,
        attempt: Attempt,
        place: tuple[str, str],
        reason: str,
        *,
        pod: str = "",
    ) -> Call[str]:
        """Take the permission back; a pod that exists or appears is removed.

        Args:
            token: of the executor's lease.
            owner: the executor's id.
            attempt: the present one.
            place: cluster and namespace.
            reason: why, in words.
            pod: name of the attempt's pod, to be looked up in the picture where the record is lost.

        The reply is "ok", "lease", "owner", "withdrawn" or "final".
        """
        launch = attempt.launch
        return Call(
            script("withdraw"),
            (
                self.keys.executor(owner),
                self.keys.task(launch.digest),
                self.keys.tasks,
                self.keys.pods(*place),
            ),
            (
                self.keys.prefix,
                token,
                owner,
                attempt.number,
                launch_item(attempt),
                launch.digest,
                _identity(launch, *place),
                reason,
                self._ttl,
                self._window,
                pod,
            ),
            lambda reply: reply[0].decode(),
        )

    def finish(
        self,
        token: str,
        owner: str,
        launch: Launch,
        entries: Sequence[str],
        removal: DeleteMessage | None,
    ) -> Call[str]:
        """Delete its events, ask for its pod's removal, close its record.

        The reply is "ok", "lease" or "owner" (another executor has it now).
        """
        return Call(
            script("finish"),
            (
                self.keys.executor(owner),
                self.keys.task(launch.digest),
                self.keys.results(owner),
                self.keys.tasks,
            ),
            (
                self.keys.prefix,
                token,
                owner,
                launch.digest,
                self._ttl,
                self._window,
                b"" if removal is None else orjson.dumps(removal.as_dict()),
                *entries,
            ),
            _text,
        )

    # A user's call: no lease is needed.

    def cancel(self, digest: str, message: str) -> Call[Cancelled]:
        """End a launch, whoever owns it; its owner is told of a failure.

        Args:
            digest: of the launch.
            message: who cancelled it, in words.
        """
        return Call(
            script("cancel"),
            (self.keys.task(digest), self.keys.tasks),
            (self.keys.prefix, digest, message, self._ttl),
            launch_reply.cancelled,
        )

    # The launcher's calls.

    def grant(
        self, attempt: Attempt, *, launcher: str, expires_at: int | None
    ) -> Call[Granted | Refused]:
        """Ask for permission to create this attempt's pod within the create window."""
        return Call(
            script("grant"),
            (self.keys.task(attempt.launch.digest),),
            (
                attempt.number,
                launcher,
                self._window,
                "" if expires_at is None else expires_at,
            ),
            launch_reply.granted,
        )

    def report(self, event: PodEvent) -> Call[str]:
        """A launcher's finding: a pod's present status, or a failure without a pod.

        The reply is "applied", "stale", "final", "unknown" or "unwanted".
        """
        return self._apply(event, token="", gone=False, leader="")

    def park(
        self,
        cluster: str,
        item: str,
        payload: bytes,
        delay: float,
        *,
        entry: tuple[str, str] | None,
        event: PodEvent | None,
    ) -> Call[bool]:
        """Set a message aside for `delay` seconds; its queue entry goes in the same step.

        Args:
            cluster: name of the cluster.
            item: `launch_item` or `removal_item`.
            payload: the message as JSON.
            delay: seconds until it is due.
            entry: full key of the queue and stream id; None for a drained item.
            event: tells the owner why it waits, and whose it is; None for a removal.

        The reply is False when nobody wants the launch any more: it was dropped.
        """
        queue, stream_id = entry or (self.keys.parked(cluster), "")
        parked = self.keys.parked(cluster)
        return Call(
            script("park"),
            (
                parked,
                self.keys.parked_messages(cluster),
                parked if event is None else self.keys.task(event.launch.digest),
            ),
            (
                self.keys.prefix,
                item,
                payload,
                int(delay * 1000),
                queue,
                stream_id,
                "" if event is None else event.attempt.number,
                b"" if event is None else event.encode(),
            ),
            lambda reply: reply == b"parked",
        )

    def drain(self, cluster: str, limit: int, lease: float) -> Call[list[tuple[str, bytes]]]:
        """Take up to `limit` due items, which fall due again after `lease` seconds."""
        return Call(
            script("drain"),
            (self.keys.parked(cluster), self.keys.parked_messages(cluster)),
            (limit, int(lease * 1000)),
            lambda reply: [
                (item.decode(), message)
                for item, message in zip(reply[::2], reply[1::2], strict=True)
            ],
        )

    def unpark(self, cluster: str, item: str) -> Call[None]:
        """A drained item is done."""
        return Call(
            script("unpark"),
            (self.keys.parked(cluster), self.keys.parked_messages(cluster)),
            (item,),
            lambda _reply: None,
        )

    def bury(
        self, queue: str, entry: str, reason: str, payload: bytes, event: PodEvent | None
    ) -> Call[bool]:
        """Move a message to the dead stream and withdraw its permission.

        Args:
            queue: full key of the queue it came from.
            entry: its stream id; "" for a drained item.
            reason: why, in words.
            payload: the message as it stood in the queue.
            event: tells the owner; None where the envelope cannot be read.

        The reply is False when somebody else has buried it already.
        """
        record = self.keys.dead if event is None else self.keys.task(event.launch.digest)
        return Call(
            script("bury"),
            (self.keys.dead, record),
            (
                self.keys.prefix,
                queue,
                entry,
                reason,
                payload,
                "" if event is None else event.attempt.number,
                b"" if event is None else event.encode(),
            ),
            bool,
        )

    # The leading watcher's calls: nothing is written unless `token` holds its lease.

    def apply(
        self, event: PodEvent, *, gone: bool, token: str, leader: str, after: int | None = None
    ) -> Call[str]:
        """Enter a pod event: picture, checkpoint, record and result stream in one step.

        Args:
            event: what the watch, or a list, showed.
            gone: whether the pod does not exist any more.
            token: of the watcher's lease.
            leader: the watcher's name.
            after: resource version of the event that must have been entered just before.

        The reply is "applied", "lease" (lost: nothing was written), "gap" (the one before was
        not entered: nothing was written), "stale", "final", "unknown" (no record: the picture
        has it) or "unwanted" (its removal is asked for).
        """
        return self._apply(event, token=token, gone=gone, leader=leader, after=after)

    def _apply(
        self, event: PodEvent, *, token: str, gone: bool, leader: str, after: int | None = None
    ) -> Call[str]:
        return Call(
            script("apply"),
            (
                self.keys.task(event.launch.digest),
                self.keys.pods(event.cluster, event.namespace),
                self.keys.watch(event.cluster, event.namespace),
                self.keys.lease(event.cluster, event.namespace),
            ),
            (
                self.keys.prefix,
                token,
                event.encode(),
                event.pod,
                event.uid or "",
                str(event.resource_version),
                event.attempt.number,
                event.state.value,
                int(event.final),
                int(gone),
                leader,
                self._window,
                "" if after is None else after,
            ),
            _text,
        )

    def abandon(
        self,
        place: tuple[str, str],
        executors: Sequence[str],
        *,
        token: str,
        cursor: str,
        count: int,
    ) -> Call[str | None]:
        """One step through all wanted launches: those of dead executors expire from now on.

        The reply is the next cursor, None at the end, "" without the lease.
        """
        keys = self.keys
        return Call(
            script("abandon"),
            (keys.lease(*place), keys.executors, keys.tasks),
            (keys.prefix, token, self._ttl, cursor, count, *executors),
            launch_reply.next_cursor,
        )

    def condemn(self, event: PodEvent, cause: Cause, message: str, *, token: str) -> Call[str]:
        """Remember why this pod must go, and ask a launcher to stop it.

        Args:
            event: the pod as it was judged.
            cause: what its failure is to be called.
            message: the reason in words.
            token: of the watcher's lease.

        The reply is "applied", "lease", "unknown", "final" or "stale".
        """
        return Call(
            script("condemn"),
            (
                self.keys.task(event.launch.digest),
                self.keys.lease(event.cluster, event.namespace),
            ),
            (
                self.keys.prefix,
                token,
                event.uid or "",
                str(event.resource_version),
                event.attempt.number,
                orjson.dumps({"cause": cause.value, "message": message}),
                event.pod,
            ),
            _text,
        )

    def checkpoint(
        self, place: tuple[str, str], version: int, *, token: str, leader: str
    ) -> Call[bool]:
        """Everything up to this resource version has been applied (a bookmark says so)."""
        return self._watch("checkpoint", place, version, token, leader, False)

    def relisting(
        self, place: tuple[str, str], *, token: str, leader: str, new_generation: bool
    ) -> Call[bool]:
        """A list begins: until it is complete the picture proves nobody's absence.

        Args:
            place: cluster and namespace.
            token: of the watcher's lease.
            leader: the watcher's name.
            new_generation: the server's resource version fell; older versions say nothing.
        """
        return self._watch("relisting", place, 0, token, leader, new_generation)

    def synced(
        self, place: tuple[str, str], version: int, *, token: str, leader: str
    ) -> Call[bool]:
        """A list of this resource version has been applied whole."""
        return self._watch("synced", place, version, token, leader, False)

    def _watch(
        self,
        step: str,
        place: tuple[str, str],
        version: int,
        token: str,
        leader: str,
        new_generation: bool,
    ) -> Call[bool]:
        return Call(
            script("watch"),
            (self.keys.lease(*place), self.keys.watch(*place)),
            (token, leader, step, str(version), int(new_generation)),
            bool,
        )


def launch_item(attempt: Attempt) -> str:
    """Name of a parked launch."""
    return f"launch:{attempt.launch.digest}:{attempt.number}"


def removal_item(message: DeleteMessage) -> str:
    """Name of a parked removal."""
    return f"{message.removal.value}:{message.uid}"


def _identity(launch: Launch, cluster: str, namespace: str) -> bytes:
    return orjson.dumps(
        {
            "deployment": launch.deployment,
            "key": orjson.dumps(launch.key.as_list()).decode(),
            "launch_id": launch.launch_id,
            "cluster": cluster,
            "namespace": namespace,
        }
    )


def _text(reply: Any) -> str:
    return str(reply.decode())
