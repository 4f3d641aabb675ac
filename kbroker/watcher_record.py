"""The launch record as the leading watcher writes it: the way every event enters."""

from __future__ import annotations

from collections.abc import Sequence

from kbroker import launch_reply
from kbroker.event import Cause, PodEvent
from kbroker.record_scripts import RecordScripts
from kbroker.redis_client import Call, script


class WatcherRecords(RecordScripts):
    """The leading watcher's calls: nothing is written unless `token` holds its lease."""

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
        return self._condemn(event, cause, message, token=token)

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
