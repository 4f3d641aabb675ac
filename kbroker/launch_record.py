"""The launch record as its executor writes it: what is wanted, and what has ended."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from kbroker import launch_reply
from kbroker.event import PodEvent
from kbroker.launch_reply import Adopted, Cancelled, Missing, Published, Refused
from kbroker.message import DeleteMessage, LaunchMessage
from kbroker.record_scripts import RecordScripts, launch_item, text
from kbroker.redis_client import Call, script
from kbroker.task import Attempt, Launch


class LaunchRecords(RecordScripts):
    """The executor's calls: nothing is written unless `token` holds its lease."""

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
        *,
        claim: bool = True,
    ) -> Call[Adopted | Missing | Refused]:
        """Become the owner of a launch whose owner is dead; rewrite a lost record.

        Args:
            token: of the executor's lease.
            owner: the executor's id.
            attempt: the launch, and the newest attempt the caller knows of.
            place: cluster and namespace.
            pod_names: of attempt 1, 2, …, to be looked up in the picture.
            known: the last event the caller knows; stands in for a lost record.
            claim: whether the scheduler gave it to this executor, which has not had it yet. Then
                its owner is as good as dead when another process lives under the owner's id:
                that one knows nothing of it. One that had it, and lost it, may not claim it back.
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
                int(claim),
                *pod_names,
            ),
            launch_reply.adopted,
        )

    def glance(
        self, token: str, owner: str, attempt: Attempt, pods: str, known: PodEvent | None
    ) -> Call[bool]:
        """Whether a launch stands as its owner believes: a look that costs little.

        Args:
            token: of the executor's lease.
            owner: the executor's id.
            attempt: the present one.
            pods: key of the picture of its pods.
            known: the last event of this attempt that the executor applied.
        """
        digest = attempt.launch.digest
        last = ("", "", "")
        if known is not None:
            last = (known.pod, known.uid or "", str(known.resource_version))
        return Call(
            script("glance"),
            (self.keys.executor(owner), self.keys.task(digest), pods),
            (self.keys.prefix, token, owner, attempt.number, launch_item(attempt), *last),
            bool,
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
            text,
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
