"""The launches that an executor tracks, and which of a key's launches is the newest."""

from __future__ import annotations

from collections.abc import Iterator

from kbroker.task import Launch, LaunchName, TaskKey
from kbroker.tracked import Tracked


class LaunchRegistry:
    """All tracked launches by identity.

    Only a key's newest launch speaks for the key; older ones live on until their
    pods are gone.
    """

    def __init__(self) -> None:
        # A string remembers its hash, and is compared in C.
        self._by_digest: dict[str, Tracked] = {}
        self._by_name: dict[LaunchName, Launch] = {}
        self._newest: dict[TaskKey, Tracked] = {}
        self._older: dict[TaskKey, list[Tracked]] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def __iter__(self) -> Iterator[Tracked]:
        return iter(list(self._by_digest.values()))

    def add(self, tracked: Tracked) -> Tracked | None:
        """Track a launch as its key's newest; returns the one it replaces, if any."""
        older = self._newest.get(tracked.key)
        if older is not None:
            older.newest = False
            self._older.setdefault(tracked.key, []).append(older)
        launch = tracked.launch
        self._by_digest[launch.digest] = tracked
        self._by_name[launch.name] = launch
        self._newest[tracked.key] = tracked
        tracked.newest = True
        return older

    def get(self, launch: Launch) -> Tracked | None:
        """The launch, if it is tracked."""
        return self._by_digest.get(launch.digest)

    def named(self, name: LaunchName) -> Launch | None:
        """The launch of this name, if it is tracked."""
        return self._by_name.get(name)

    def newest(self, key: TaskKey) -> Tracked | None:
        """The newest launch of a key."""
        return self._newest.get(key)

    def all_of(self, key: TaskKey) -> list[Tracked]:
        """Every launch of a key that is tracked, the newest last."""
        newest = self._newest.get(key)
        return [*self._older.get(key, ()), *([] if newest is None else [newest])]

    def remove(self, tracked: Tracked) -> None:
        """Forget a launch."""
        launch = tracked.launch
        self._by_digest.pop(launch.digest, None)
        self._by_name.pop(launch.name, None)
        if tracked.newest:
            del self._newest[tracked.key]
            tracked.newest = False
            return
        older = self._older.get(tracked.key, [])
        if tracked in older:
            older.remove(tracked)
        if not older:
            self._older.pop(tracked.key, None)

    def keys(self) -> list[TaskKey]:
        """Every key that has a launch."""
        return list(self._newest)
