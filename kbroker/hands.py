"""What a worker process has in hand, over all its queues.

A message that kills its process takes down with it whatever else is in hand, and
each of those has been handed out once more. So that no innocent one is taken for
dead, a message whose process has died with it is worked on alone from then on.
"""

from __future__ import annotations

import threading


class Hands:
    """Counts calls of actors, and keeps them away while one is to be alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._alone: object = None

    def may_take(self, who: object) -> bool:
        """Whether this consumer may read more."""
        with self._lock:
            return self._alone is None or self._alone is who

    def take(self) -> None:
        """A call is handed out."""
        with self._lock:
            self._calls += 1

    def let_go(self) -> None:
        """A call is over."""
        with self._lock:
            self._calls -= 1

    def alone(self, who: object) -> bool:
        """Ask to be alone: from now on the others take nothing; whether it is so already."""
        with self._lock:
            if self._alone is None:
                self._alone = who
            return self._alone is who and self._calls == 0

    def no_longer_alone(self, who: object) -> None:
        """Let the others take again."""
        with self._lock:
            if self._alone is who:
                self._alone = None
