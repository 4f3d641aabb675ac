"""Objects that finalizers hold: they are deleted, and stay until the last finalizer is taken off.

https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
"""

from __future__ import annotations

from kbroker.local.cluster.failure import invalid
from kbroker.local.cluster.store import Object, Store, Stored, timestamp


def remove(store: Store, resource: str, before: Stored) -> Stored:
    """Remove an object, or say in it that only its finalizers hold it."""
    if not before.object["metadata"].get("finalizers"):
        return store.remove(resource, before)
    after = before.copy()
    after["metadata"].setdefault("deletionTimestamp", timestamp())
    after["metadata"]["deletionGracePeriodSeconds"] = 0
    return store.replace(resource, before, after)


def is_held(content: Object) -> bool:
    """Whether nothing but finalizers keeps an object."""
    grace: int | None = content["metadata"].get("deletionGracePeriodSeconds")
    return grace == 0


def check(kind: str, before: Object, after: Object) -> None:
    """Refuse new finalizers for what is being deleted.

    Raises:
        Failure: 422.
    """
    had = before["metadata"].get("finalizers") or []
    added = [one for one in after["metadata"].get("finalizers") or [] if one not in had]
    if before["metadata"].get("deletionTimestamp") and added:
        problem = (
            "Forbidden: no new finalizers can be added if the object is being deleted, "
            f"found new finalizers {added}"
        )
        raise invalid(kind, before["metadata"]["name"], [("metadata.finalizers", problem)])
