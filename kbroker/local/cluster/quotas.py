"""ResourceQuotas on the number of pods: admission, and the status that a controller fills in.

https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

from kbroker.local.cluster.failure import forbidden
from kbroker.local.cluster.report import ENDED
from kbroker.local.cluster.store import Change, Object, Store, Stored

_QUOTAS = "resourcequotas"
# A quota on "pods" does not count those that have ended, one on "count/pods" counts all.
_COUNTED = ("pods", "count/pods")


class Quotas:
    """Keeps to the quotas.

    Args:
        store: holds quotas and pods.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        store.listen("pods", self._pod_changed)
        store.listen(_QUOTAS, self._quota_changed)

    def check(self, namespace: str, name: str) -> None:
        """One more pod has room.

        Raises:
            Failure: 403.
        """
        for quota in self._store.all(_QUOTAS, namespace):
            hard, used = _hard(quota), self._used(quota)
            for resource, limit in hard.items():
                if used[resource] + 1 > limit:
                    raise forbidden(
                        "pods",
                        name,
                        f"exceeded quota: {quota.object['metadata']['name']}, requested: "
                        f"{resource}=1, used: {resource}={used[resource]}, limited: "
                        f"{resource}={limit}",
                    )

    def _used(self, quota: Stored) -> dict[str, int]:
        """What is used, from the status; counted where that says nothing."""
        known = (quota.object.get("status") or {}).get("used") or {}
        if all(resource in known for resource in _hard(quota)):
            return {resource: int(str(known[resource])) for resource in _hard(quota)}
        pods = [p.object for p in self._store.all("pods", quota.object["metadata"]["namespace"])]
        return {r: sum(_counts(r, pod) for pod in pods) for r in _hard(quota)}

    def _quota_changed(self, change: Change) -> None:
        if change.type != "DELETED" and _hard(change.now) != _limits_shown(change.now):
            self._show(change.now, self._used(change.now))

    def _pod_changed(self, change: Change) -> None:
        namespace = change.now.object["metadata"]["namespace"]
        for quota in list(self._store.all(_QUOTAS, namespace)):
            was = None if change.before is None else change.before.object
            now = None if change.type == "DELETED" else change.now.object
            moved = {r: _counts(r, now) - _counts(r, was) for r in _hard(quota)}
            if any(moved.values()):
                used = self._used(quota)
                self._show(quota, {r: max(0, used[r] + moved[r]) for r in moved})

    def _show(self, quota: Stored, used: dict[str, int]) -> None:
        found = self._store.find(
            _QUOTAS, quota.object["metadata"]["namespace"], quota.object["metadata"]["name"]
        )
        if found is None:
            return
        after = found.copy()
        after["status"] = {
            "hard": {r: str(limit) for r, limit in _hard(quota).items()},
            "used": {r: str(count) for r, count in used.items()},
        }
        self._store.replace(_QUOTAS, found, after)


def _hard(quota: Stored) -> dict[str, int]:
    hard = (quota.object.get("spec") or {}).get("hard") or {}
    return {resource: int(str(hard[resource])) for resource in _COUNTED if resource in hard}


def _limits_shown(quota: Stored) -> dict[str, int]:
    hard = (quota.object.get("status") or {}).get("hard") or {}
    return {resource: int(str(hard[resource])) for resource in _COUNTED if resource in hard}


def _counts(resource: str, pod: Object | None) -> int:
    if pod is None:
        return 0
    return int(resource == "count/pods" or pod["status"].get("phase") not in ENDED)
