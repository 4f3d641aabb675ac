"""Why nothing happens: what a run needs and nobody provides."""

from __future__ import annotations

import time
from collections.abc import Callable

from kbroker.errors import BrokerUnavailableError
from kbroker.executor import KubernetesExecutor
from kbroker.redis_client import connect
from kbroker.stream_queue import queue_stats

_LOOK_EVERY = 2.0
# As often in a row must nobody have taken anything before that is said.
_LOOKS = 3


class Hints:
    """Looks whether launchers take what was published, and whether a watcher leads.

    Args:
        executor: started already.
        places: (cluster, namespace) of every task.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        executor: KubernetesExecutor,
        places: set[tuple[str, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        config = executor.config
        self._scheduler = executor.scheduler
        self._priorities = config.broker.priorities
        self._places = sorted(places)
        self._clock = clock
        self._client = connect(config.broker.url, config.broker.scheduler_timeout)
        self._next = clock() + _LOOK_EVERY
        self._untouched: dict[str, tuple[int, int]] = {}
        self._said: set[str] = set()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def look(self) -> list[str]:
        """What is new to say; looks at Redis only from time to time."""
        if self._clock() < self._next:
            return []
        self._next = self._clock() + _LOOK_EVERY
        try:
            found = [*self._without_launchers(), *self._without_watcher()]
        except BrokerUnavailableError:
            return []  # the executor says so
        new = [hint for hint in found if hint not in self._said]
        self._said.update(new)
        return new

    def _without_launchers(self) -> list[str]:
        hints = []
        for cluster in sorted({cluster for cluster, _ in self._places}):
            for priority in self._priorities:
                queue = self._scheduler.keys.launch_queue(cluster, priority)
                stats = queue_stats(self._client, queue)
                length, looks = self._untouched.get(queue, (0, 0))
                untouched = stats.waiting > 0 and not stats.in_flight and stats.length >= length
                self._untouched[queue] = (stats.length, looks + 1 if untouched else 0)
                if untouched and looks + 1 >= _LOOKS:
                    hints.append(
                        f"hint: {stats.waiting} launches wait in {queue} and nobody takes them: "
                        "is a launcher running? kbroker launcher"
                    )
                    break
        return hints

    def _without_watcher(self) -> list[str]:
        hints = []
        for cluster, namespace in self._places:
            health = self._scheduler._health_check_kube_watcher(cluster, namespace)
            if not health.healthy:
                last = f" ({health.leader} was the last)" if health.leader else ""
                hints.append(
                    f"hint: no watcher leads {cluster}/{namespace}{last}, so nobody tells how its "
                    "tasks end: kbroker watcher"
                )
        return hints
