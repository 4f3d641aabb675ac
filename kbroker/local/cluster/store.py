"""Objects, their versions, and the bounded history that watches replay."""

from __future__ import annotations

import itertools
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from kbroker.local.cluster.failure import already_exists, expired, not_found

Object = dict[str, Any]
Key = tuple[str, str]

_SNAPSHOTS = 64


class Stored:
    """One version of one object; never changed. Its JSON is made once for all readers."""

    __slots__ = ("_raw", "object", "version")

    def __init__(self, version: int, content: Object) -> None:
        self.version = version
        self.object = content
        self._raw: bytes | None = None

    @property
    def raw(self) -> bytes:
        """The object as JSON."""
        if self._raw is None:
            self._raw = orjson.dumps(self.object)
        return self._raw

    def copy(self) -> Object:
        """A copy to change."""
        content: Object = orjson.loads(self.raw)
        return content


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one object.

    Attributes:
        type: ADDED, MODIFIED or DELETED.
        version: resource version of the change.
        resource: such as "pods".
        now: the object after the change; for DELETED as it last was, at this version.
        before: the object before the change; None for ADDED.
    """

    type: str
    version: int
    resource: str
    now: Stored
    before: Stored | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A list as it was, for its later pages.

    Attributes:
        version: of the list.
        items: all of them.
    """

    version: int
    items: list[Stored]


class Store:
    """All objects of the cluster.

    Args:
        history: how many changes of each resource are kept for watches.

    Attributes:
        version: of the last change; one sequence for all resources.
    """

    def __init__(self, history: int) -> None:
        self.version = 1
        self._limit = history
        self._objects: dict[str, dict[Key, Stored]] = defaultdict(dict)
        self._history: dict[str, deque[Change]] = defaultdict(deque)
        self._compacted: dict[str, int] = defaultdict(int)
        self._floor = 0  # of all resources
        self._listeners: dict[str, list[Callable[[Change], None]]] = defaultdict(list)
        self._snapshots: OrderedDict[int, Snapshot] = OrderedDict()
        self._snapshot_numbers = itertools.count(1)

    def listen(self, resource: str, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` with every change of a resource; returns how to stop that."""
        self._listeners[resource].append(listener)
        return lambda: self._listeners[resource].remove(listener)

    def get(self, resource: str, namespace: str, name: str) -> Stored:
        """The object.

        Raises:
            Failure: 404.
        """
        found = self.find(resource, namespace, name)
        if found is None:
            raise not_found(resource, name)
        return found

    def find(self, resource: str, namespace: str, name: str) -> Stored | None:
        """The object, if it exists."""
        held = self._objects.get(resource)
        return None if held is None else held.get((namespace, name))

    def all(self, resource: str, namespace: str = "") -> Iterator[Stored]:
        """All objects of a resource, of one namespace or of all."""
        for (where, _), stored in self._objects[resource].items():
            if not namespace or where == namespace:
                yield stored

    def create(self, resource: str, content: Object) -> Stored:
        """Add an object; it gets a uid, a creation time and a version.

        Raises:
            Failure: 409, the name is taken.
        """
        metadata = content["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        if key in self._objects[resource]:
            raise already_exists(resource, metadata["name"])
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = timestamp()
        return self._put(resource, key, content, None)

    def replace(self, resource: str, before: Stored, content: Object) -> Stored:
        """A new version of an object; nothing happens when nothing differs."""
        if content == before.object:
            return before
        metadata = content["metadata"]
        return self._put(
            resource, (metadata.get("namespace", ""), metadata["name"]), content, before
        )

    def remove(self, resource: str, before: Stored) -> Stored:
        """Delete an object; the DELETED event shows it as it last was."""
        content = before.copy()
        metadata = content["metadata"]
        del self._objects[resource][metadata.get("namespace", ""), metadata["name"]]
        return self._changed("DELETED", resource, content, before)

    def since(self, resource: str, version: int) -> list[Change]:
        """The changes of a resource after a version.

        Raises:
            Failure: 410, they are not kept any more.
        """
        oldest = max(self._floor, self._compacted[resource])
        if version < oldest:
            raise expired(version, oldest)
        found = []
        for change in reversed(self._history[resource]):
            if change.version <= version:
                break
            found.append(change)
        return found[::-1]

    def compact(self) -> None:
        """Forget all history; older versions answer 410 from now on."""
        self._history.clear()
        self._snapshots.clear()
        self._floor = self.version

    def keep(self, items: list[Stored]) -> int:
        """Keep a list for its later pages; the number to find it by."""
        number = next(self._snapshot_numbers)
        self._snapshots[number] = Snapshot(self.version, items)
        while len(self._snapshots) > _SNAPSHOTS:
            self._snapshots.popitem(last=False)
        return number

    def kept(self, number: int, version: int) -> Snapshot:
        """The list that `keep` kept.

        Raises:
            Failure: 410, it is not kept any more.
        """
        found = self._snapshots.get(number)
        if found is None:
            raise expired(version, self.version)
        return found

    def _put(self, resource: str, key: Key, content: Object, before: Stored | None) -> Stored:
        change = "ADDED" if before is None else "MODIFIED"
        stored = self._changed(change, resource, content, before)
        self._objects[resource][key] = stored
        return stored

    def _changed(
        self, change_type: str, resource: str, content: Object, before: Stored | None
    ) -> Stored:
        self.version += 1
        content["metadata"]["resourceVersion"] = str(self.version)
        stored = Stored(self.version, content)
        change = Change(change_type, self.version, resource, stored, before)
        history = self._history[resource]
        history.append(change)
        while len(history) > self._limit:
            self._compacted[resource] = history.popleft().version
        for listener in tuple(self._listeners[resource]):
            listener(change)
        return stored


def timestamp(moment: datetime | None = None) -> str:
    """RFC 3339 with whole seconds, as the API server writes it."""
    return (moment or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
