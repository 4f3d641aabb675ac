"""The events that schedulers, kubelets and others write about pods; only the newest are kept.

The same thing said again about the same pod is counted, not written again.
https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

import time
from collections import OrderedDict

from kbroker.local.cluster.store import Object, Store, timestamp

_KEPT = 2000
SCHEDULER = "default-scheduler"
KUBELET = "kubelet"
TAINT_MANAGER = "taint-eviction-controller"

# Namespace and name of an event.
_Place = tuple[str, str]


class Events:
    """Writes events.

    Args:
        store: where to.
        node: name of the node that a kubelet's events come from.
    """

    def __init__(self, store: Store, node: str) -> None:
        self._store = store
        self._node = node
        self._last = 0
        # What was said of whom → the event, oldest first.
        self._written: OrderedDict[tuple[str, ...], _Place] = OrderedDict()

    def record(
        self, pod: Object, source: str, kind: str, reason: str, message: str, container: str = ""
    ) -> None:
        """Write an event about a pod.

        Args:
            pod: the pod.
            source: SCHEDULER, KUBELET or TAINT_MANAGER.
            kind: "Normal" or "Warning".
            reason: such as "Scheduled".
            message: in words.
            container: path of the container that it is about, "spec.containers{base}"; "" if none.
        """
        metadata = pod["metadata"]
        said = (metadata["uid"], reason, message, container)
        place = self._written.get(said)
        known = None if place is None else self._store.find("events", *place)
        if known is not None:
            after = known.copy()
            after["count"] += 1
            after["lastTimestamp"] = timestamp()
            self._store.replace("events", known, after)
            return
        namespace = metadata["namespace"]
        where = self._store.find("namespaces", "", namespace)
        if where is None or where.object["status"]["phase"] != "Active":
            return
        event = self._event(pod, source, container) | {
            "type": kind,
            "reason": reason,
            "message": message,
        }
        self._store.create("events", event)
        self._written[said] = (namespace, event["metadata"]["name"])
        self._written.move_to_end(said)
        if len(self._written) > _KEPT:
            stale = self._store.find("events", *self._written.popitem(last=False)[1])
            if stale is not None:
                self._store.remove("events", stale)

    def _event(self, pod: Object, source: str, container: str) -> Object:
        metadata, now = pod["metadata"], timestamp()
        about = {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        }
        kubelet = source == KUBELET
        return {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {
                "name": f"{metadata['name'][:200]}.{self._number():016x}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": about | ({"fieldPath": container} if container else {}),
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "eventTime": None,
            "source": {"component": source} | ({"host": self._node} if kubelet else {}),
            "reportingComponent": source,
            "reportingInstance": self._node if kubelet else "",
        }

    def _number(self) -> int:
        """A number like a real event's: the time in nanoseconds, and each only once."""
        self._last = max(time.time_ns(), self._last + 1)
        return self._last
