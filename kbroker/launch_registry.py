"""The launches that an executor tracks, and which of a key's launches is the newest."""

from __future__ import annotations

from collections.abc import Iterator

from kbroker.task import Launch, TaskKey
from kbroker.tracked import Tracked


class LaunchRegistry:
    """All tracked launches by identity.

    Only a key's newest launch speaks for the key; older ones live on until their
    pods are gone.
    """

    def __init__(self) -> None:
        self._by_launch: dict[Launch, Tracked] = {}
        self._newest: dict[TaskKey, Tracked] = {}
        self._older: dict[TaskKey, list[Tracked]] = {}

    def __len__(self) -> int:
        return len(self._by_launch)

    def __iter__(self) -> Iterator[Tracked]:
        return iter(list(self._by_launch.values()))

    def add(self, tracked: Tracked) -> Tracked | None:
        """Track a launch as its key's newest; returns the one it replaces, if any."""
        older = self._newest.get(tracked.key)
        if older is not None:
            self._older.setdefault(tracked.key, []).append(older)
        self._by_launch[tracked.attempt.launch] = tracked
        self._newest[tracked.key] = tracked
        return older

    def get(self, launch: Launch) -> Tracked | None:
        """The launch, if it is tracked."""
        return self._by_launch.get(launch)

    def newest(self, key: TaskKey) -> Tracked | None:
        """The newest launch of a key."""
        return self._newest.get(key)

    def all_of(self, key: TaskKey) -> list[Tracked]:
        """Every launch of a key that is tracked, the newest last."""
        newest = self._newest.get(key)
        return [*self._older.get(key, ()), *([] if newest is None else [newest])]

    def is_newest(self, tracked: Tracked) -> bool:
        """Whether this launch speaks for its key."""
        return self._newest.get(tracked.key) is tracked

    def remove(self, tracked: Tracked) -> None:
        """Forget a launch."""
        self._by_launch.pop(tracked.attempt.launch, None)
        if self.is_newest(tracked):
            del self._newest[tracked.key]
            return
        older = self._older.get(tracked.key, [])
        if tracked in older:
            older.remove(tracked)
        if not older:
            self._older.pop(tracked.key, None)

    def keys(self) -> list[TaskKey]:
        """Every key that has a launch."""
        return list(self._newest)
