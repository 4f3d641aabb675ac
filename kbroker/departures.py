"""What leaves the executor: launches that are over, launches that are revoked, and their pods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kbroker.kube_scheduler import AirflowKubernetesScheduler
from kbroker.message import DELETE, RELEASE, DeleteMessage, Removal
from kbroker.settings import KubernetesSettings
from kbroker.task import Launch
from kbroker.tracked import Tracked

# A removal that did not happen is asked for again after this many seconds.
ASK_AGAIN = 60.0


@dataclass(slots=True)
class _Leaving:
    launch: Launch
    removal: DeleteMessage
    ask_at: float
    doubted: bool = False  # whether Redis may have lost the request


class Departures:
    """Closes records and has pods removed, and remembers each removal until it happened.

    Args:
        scheduler: the executor's broker side.
        monotonic: seconds that never jump.
    """

    def __init__(
        self, scheduler: AirflowKubernetesScheduler, monotonic: Callable[[], float]
    ) -> None:
        self._scheduler = scheduler
        self._monotonic = monotonic
        self._core = scheduler.config.core
        self._kubernetes = scheduler.config.kubernetes
        self._over: list[Tracked] = []
        self._revoked: list[tuple[Tracked, str]] = []
        self._leaving: dict[str, _Leaving] = {}

    def over(self, tracked: Tracked) -> None:
        """Its final state has left the executor's hands: its pod may go."""
        self._over.append(tracked)

    def revoked(self, tracked: Tracked, reason: str) -> None:
        """Nobody wants it any more."""
        self._revoked.append((tracked, reason))

    @property
    def revoking(self) -> bool:
        """Whether permissions are still to be taken back."""
        return bool(self._revoked)

    def withdraw(self) -> bool:
        """Take back the permission for what was revoked; False when the lease is not ours.

        Raises:
            BrokerUnavailableError: Redis is away; it is done at the next call.
        """
        if not self._revoked:
            return True
        batch = self._revoked[: self._core.publish_batch]
        replies = self._scheduler.withdraw([(t.attempt, *t.place, why) for t, why in batch])
        if "lease" in replies:
            return False
        del self._revoked[: len(batch)]
        return True

    def finish(self) -> list[Tracked] | None:
        """Close what is over; returns it, or None when the lease is not ours.

        Raises:
            BrokerUnavailableError: Redis is away; it is done at the next call.
        """
        if not self._over:
            return []
        batch = [(t, self._removal(t)) for t in self._over[: self._core.event_batch]]
        replies = self._scheduler.finish(
            [(t.attempt.launch, t.entries, removal) for t, removal in batch]
        )
        if "lease" in replies:
            return None
        del self._over[: len(batch)]
        ask_at = self._monotonic() + self._kubernetes.create_window + ASK_AGAIN
        for tracked, removal in batch:
            if removal is not None and removal.removal is DELETE:
                self._leaving[removal.uid] = _Leaving(tracked.attempt.launch, removal, ask_at)
        return [tracked for tracked, _ in batch]

    def check(self) -> None:
        """Forget the removals that happened; ask again for those that should have.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        now = self._monotonic()
        batch = list(self._leaving.values())[: self._core.event_batch]
        places = {(x.removal.cluster, x.removal.namespace) for x in batch}
        complete = {place: self._scheduler.progress(*place).complete_at > 0 for place in places}
        present = self._scheduler.pods_present(
            [(x.removal.cluster, x.removal.namespace, x.removal.pod) for x in batch]
        )
        doubted = [one for one in batch if one.doubted]
        asked = self._scheduler.removals_asked([(x.launch, x.removal.uid) for x in doubted])
        for one, known in zip(doubted, asked, strict=True):
            one.doubted = False
            if not known:
                one.ask_at = 0.0
        for one, exists in zip(batch, present, strict=True):
            removal = one.removal
            if exists and now >= one.ask_at:
                self._scheduler.delete_pod(removal)
                one.ask_at = now + ASK_AGAIN
            del self._leaving[removal.uid]
            if exists or not complete[removal.cluster, removal.namespace]:
                self._leaving[removal.uid] = one  # at the end: the others get their turn

    def doubt_all(self) -> None:
        """Redis may have lost the requests: ask again for those that no record knows of."""
        for one in self._leaving.values():
            one.doubted = True

    def _removal(self, tracked: Tracked) -> DeleteMessage | None:
        return tracked.removal(how_to_remove(self._kubernetes, succeeded=bool(tracked.succeeded)))


def how_to_remove(settings: KubernetesSettings, *, succeeded: bool) -> Removal:
    """Whether the pod of a launch that is over is deleted, or kept."""
    if settings.delete_worker_pods and (succeeded or settings.delete_worker_pods_on_failure):
        return DELETE
    return RELEASE
