"""Launches that wait in the executor's memory to be published."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from kbroker.message import LaunchMessage
from kbroker.task import TaskKey
from kbroker.tracked import Tracked


class PublishQueue:
    """First in, first out; any launch can be taken out of the middle."""

    def __init__(self) -> None:
        self._waiting: dict[Tracked, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, tracked: Tracked) -> None:
        """Append a launch; one that waits already keeps its place."""
        self._waiting[tracked] = None

    def discard(self, tracked: Tracked) -> None:
        """Take a launch out, wherever it stands."""
        self._waiting.pop(tracked, None)

    def batch(
        self, limit: int, slots: int | None, running: Collection[TaskKey], now: float
    ) -> list[Tracked]:
        """The next launches to publish; they stay until `discard`.

        Args:
            limit: how many at most.
            slots: how many of them may be new; None for any number.
            running: tasks that have a slot already: a relaunch takes no other.
            now: monotonic seconds.
        """

        def may_go(tracked: Tracked) -> bool:
            nonlocal slots
            if tracked.not_before > now:
                return False
            if slots is None or tracked.key in running:
                return True
            slots -= 1
            return slots >= 0

        return list(islice(filter(may_go, self._waiting), limit))

    def new(self, running: Collection[TaskKey]) -> dict[TaskKey, LaunchMessage]:
        """What waits for its first publication, by task key."""
        return {t.key: t.message for t in self._waiting if t.key not in running}
