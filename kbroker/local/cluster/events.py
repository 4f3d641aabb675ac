"""The events that a scheduler and a kubelet write about pods; only the newest are kept."""

from __future__ import annotations

import itertools
from collections import deque

from kbroker.local.cluster.store import Object, Store, timestamp

_KEPT = 2000


class Events:
    """Writes events.

    Args:
        store: where to.
        node: name of the node that they come from.
    """

    def __init__(self, store: Store, node: str) -> None:
        self._store = store
        self._node = node
        self._written: deque[tuple[str, str]] = deque()
        self._numbers = itertools.count(1)

    def record(self, pod: Object, kind: str, reason: str, message: str) -> None:
        """Write an event about a pod.

        Args:
            pod: the pod.
            kind: "Normal" or "Warning".
            reason: such as "Scheduled".
            message: in words.
        """
        metadata = pod["metadata"]
        namespace = metadata["namespace"]
        where = self._store.find("namespaces", "", namespace)
        if where is None or where.object["status"]["phase"] != "Active":
            return
        now = timestamp()
        name = f"{metadata['name'][:200]}.{next(self._numbers):016x}"
        self._store.create(
            "events",
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {
                    "kind": "Pod",
                    "apiVersion": "v1",
                    "namespace": namespace,
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "resourceVersion": metadata["resourceVersion"],
                },
                "type": kind,
                "reason": reason,
                "message": message,
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": {"component": "local-cluster", "host": self._node},
            },
        )
        self._written.append((namespace, name))
        if len(self._written) > _KEPT:
            stale = self._store.find("events", *self._written.popleft())
            if stale is not None:
                self._store.remove("events", stale)
