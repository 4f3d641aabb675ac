"""Task instances that another scheduler left behind, and that become this executor's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from kbroker.executor import KubernetesExecutor
from kbroker.message import LaunchRequest

# What a dead executor still owns is asked for again after this many seconds.
_AGAIN = 1.0


class Adoption:
    """Asks for launches until they are ours.

    A scheduler is declared dead by Airflow's clock, and its executor by Redis': until its lease
    is over its launches are nobody else's. To hand their task instances back meanwhile would
    cost each a try, and run some twice.

    Args:
        core: who adopts.
        monotonic: seconds that never jump.
    """

    def __init__(
        self, core: KubernetesExecutor, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._core = core
        self._monotonic = monotonic
        self._pending: dict[str, LaunchRequest] = {}
        self._at = 0.0

    def __len__(self) -> int:
        return len(self._pending)

    def ask(self, requests: Iterable[LaunchRequest]) -> None:
        """Adopt these, now or as soon as their owner is dead."""
        self._pending.update((request.launch_id, request) for request in requests)
        self._look()

    def turn(self) -> None:
        """Ask again, once a second."""
        if self._pending and self._monotonic() >= self._at:
            self._look()

    def forget(self, launch_id: str) -> None:
        """Nobody wants this launch any more."""
        self._pending.pop(launch_id, None)

    def _look(self) -> None:
        self._at = self._monotonic() + _AGAIN
        refused = self._core.adopt(list(self._pending.values()))
        self._pending = {request.launch_id: request for request in refused}
