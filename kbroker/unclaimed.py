"""Results of launches that this executor does not track: whose they are is found out later."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from kbroker.kube_scheduler import AirflowKubernetesScheduler
from kbroker.task import Launch


class Unclaimed:
    """Entries of the result stream whose launch is not tracked.

    After a restart it may still be adopted, and its entries go when it is over. One that was
    revoked, or that another executor has adopted, is never claimed: its entries go as soon as
    its record says so.

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
        self._entries: dict[Launch, list[str]] = {}
        self._check_at = 0.0

    def add(self, launch: Launch, *entries: str) -> None:
        """Keep these entries for whoever adopts the launch."""
        if not entries:
            return
        if not self._entries:
            self._check_at = self._monotonic() + self._core.reconcile_interval
        self._entries.setdefault(launch, []).extend(entries)

    def claim(self, launch: Launch) -> list[str]:
        """The entries of a launch that is tracked from now on."""
        return self._entries.pop(launch, [])

    def turn(self) -> None:
        """Delete what nobody will claim; a bounded look, every `core.reconcile_interval`.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        if not self._entries or self._monotonic() < self._check_at:
            return
        batch = list(islice(self._entries, self._core.event_batch))
        given_up = dict(zip(batch, self._scheduler.given_up(batch), strict=True))
        self._scheduler.discard([e for x in batch if given_up[x] for e in self._entries[x]])
        for launch, over in given_up.items():
            entries = self._entries.pop(launch)
            if not over:
                self._entries[launch] = entries  # at the end: the others get their turn
        self._check_at = self._monotonic() + self._core.reconcile_interval
