"""Objects, their versions, and the bounded history that watches replay."""

from __future__ import annotations

import contextlib
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


@dataclass(frozen=True, slots=True)
class State:
    """All objects at one moment, as a backup has them.

    Attributes:
        version: of the last change.
        objects: resource → (namespace, name) → object.
    """

    version: int
    objects: dict[str, dict[Key, Stored]]


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
        self._trial = False
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

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """A dry run: what changes within is undone afterwards, and nobody is told of it."""
        before = self._objects
        self._objects = defaultdict(dict, {name: dict(held) for name, held in before.items()})
        self._trial = True
        try:
            yield
        finally:
            self._objects = before
            self._trial = False

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

    def snapshot(self) -> State:
        """All objects as they are."""
        return State(self.version, {name: dict(held) for name, held in self._objects.items()})

    def created_since(self, state: State) -> list[str]:
        """The names of the pods that an earlier state does not have."""
        before = {pod.object["metadata"]["uid"] for pod in state.objects.get("pods", {}).values()}
        present = (pod.object["metadata"] for pod in self._objects["pods"].values())
        return [metadata["name"] for metadata in present if metadata["uid"] not in before]

    def restore(self, state: State) -> None:
        """Go back to an earlier state: resource versions fall.

        Listeners are told of what went, came back and changed. Nodes report anew how their
        pods are, as kubelets do.
        """
        before, self._objects = self._objects, defaultdict(dict)
        for resource, held in state.objects.items():
            self._objects[resource] = dict(held)
        self.version = state.version
        self._snapshots.clear()
        for resource in self._history:
            kept = (c for c in self._history[resource] if c.version <= state.version)
            self._history[resource] = deque(kept)
        for resource in {*before, *self._objects}:
            self._tell_restored(resource, before[resource], self._objects[resource])
        for key, stored in before["pods"].items():
            self._report_again(key, stored)

    def _tell_restored(
        self, resource: str, before: dict[Key, Stored], now: dict[Key, Stored]
    ) -> None:
        changes = []
        for key, was in before.items():
            found = now.get(key)
            if found is None or uid_of(found) != uid_of(was):
                changes.append(Change("DELETED", self.version, resource, was, was))
        for key, found in list(now.items()):
            old = before.get(key)
            if old is None or uid_of(found) != uid_of(old):
                changes.append(Change("ADDED", found.version, resource, found, None))
        for change in changes:
            for listener in tuple(self._listeners[resource]):
                listener(change)

    def _report_again(self, key: Key, newer: Stored) -> None:
        found = self._objects["pods"].get(key)
        same = found is not None and uid_of(found) == uid_of(newer)
        if found is None or not same or not found.object["spec"].get("nodeName"):
            return
        after = found.copy()
        after["status"] = newer.copy()["status"]
        self.replace("pods", found, after)

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
        if self._trial:
            return Stored(before.version if before else 0, content)
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


def uid_of(stored: Stored) -> str:
    """Tells an object from another one of the same name."""
    return str(stored.object["metadata"]["uid"])
