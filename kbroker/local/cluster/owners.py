"""What goes with its owners: Secrets and config maps whose owners, pods, have all gone.

https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents

A real cluster collects them a moment later; owners of other kinds are taken to be there.
"""

from __future__ import annotations

from kbroker.local.cluster import finalizers
from kbroker.local.cluster.store import Change, Object, Store, Stored, uid_of

_OWNED = ("secrets", "configmaps")


class Owners:
    """Removes what has lost its owners.

    Args:
        store: where objects are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # uid of the owner → resource, namespace and name of what it owns
        self._owned: dict[str, set[tuple[str, str, str]]] = {}
        for resource in _OWNED:
            store.listen(resource, self._note)
        store.listen("pods", self._pod_changed)

    def written(self, resource: str, stored: Stored) -> None:
        """An object was created or changed; its owners may have gone before."""
        if resource in _OWNED and self._is_orphan(stored.object):
            finalizers.remove(self._store, resource, stored)

    def _note(self, change: Change) -> None:
        metadata = change.now.object["metadata"]
        key = (change.resource, metadata["namespace"], metadata["name"])
        for owner in metadata.get("ownerReferences") or []:
            uid = owner.get("uid", "")
            if change.type != "DELETED":
                self._owned.setdefault(uid, set()).add(key)
            elif uid in self._owned:
                self._owned[uid].discard(key)

    def _pod_changed(self, change: Change) -> None:
        if change.type != "DELETED":
            return
        for resource, namespace, name in tuple(self._owned.pop(uid_of(change.now), ())):
            found = self._store.find(resource, namespace, name)
            if found is not None and self._is_orphan(found.object):
                finalizers.remove(self._store, resource, found)

    def _is_orphan(self, content: Object) -> bool:
        metadata = content["metadata"]
        owners = metadata.get("ownerReferences") or []
        namespace = metadata["namespace"]
        return bool(owners) and not any(self._exists(namespace, owner) for owner in owners)

    def _exists(self, namespace: str, owner: Object) -> bool:
        if owner.get("kind") != "Pod":
            return True
        found = self._store.find("pods", namespace, owner.get("name", ""))
        return found is not None and uid_of(found) == owner.get("uid")
