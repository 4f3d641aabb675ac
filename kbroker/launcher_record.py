"""The launch record as launchers use it: permission to create, outcomes, parking."""

from __future__ import annotations

from kbroker import launch_reply
from kbroker.event import Cause, PodEvent
from kbroker.launch_reply import Granted, Refused
from kbroker.record_scripts import RecordScripts
from kbroker.redis_client import Call, script
from kbroker.task import Attempt


class LauncherRecords(RecordScripts):
    """The launcher's calls; they need no lease."""

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

    def stop(self, event: PodEvent, cause: Cause, message: str) -> Call[str]:
        """Remember why a pod cannot start, and ask a launcher to stop it.

        Args:
            event: the pod as it was reported.
            cause: what its failure is to be called.
            message: the reason in words.

        The reply is "applied", "unknown", "final" or "stale".
        """
        return self._condemn(event, cause, message, token="")

    def park(
        self,
        cluster: str,
        item: str,
        payload: bytes,
        delay: float,
        *,
        entry: tuple[str, str] | None,
        event: PodEvent | None,
        even_launched: bool = False,
    ) -> Call[bool]:
        """Set a message aside for `delay` seconds; its queue entry goes in the same step.

        Args:
            cluster: name of the cluster.
            item: `launch_item` or `removal_item`.
            payload: the message as JSON.
            delay: seconds until it is due.
            entry: full key of the queue and stream id; None for a drained item.
            event: tells the owner why it waits, and whose it is; None for a removal.
            even_launched: keep a launch whose pod is known: the pod waits for something.

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
                int(even_launched),
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
