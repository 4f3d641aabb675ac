"""A node that does not exist, played by writing what its kubelet would write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kbroker.pod import BASE
from tests.conformance.cluster import Cluster, Object, path

NODE = "kbroker-conformance-node"
STRATEGIC = "application/strategic-merge-patch+json"


class PlayedNode:
    """Takes pods and says what becomes of them.

    Args:
        cluster: where, as its administrator.
        namespace: of the pods.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace

    def bind(self, name: str) -> None:
        """Give a pod to this node, as a scheduler does."""
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
        }
        where = path("pods", self._namespace, f"{name}/binding")
        self._cluster.call("POST", where, binding).expect(201)

    def waits(self, name: str, reason: str, message: str) -> None:
        """The base container cannot start yet."""
        state = {"waiting": {"reason": reason, "message": message}}
        self.say(name, phase="Pending", containerStatuses=[_base(state, ready=False)])

    def runs(self, name: str) -> None:
        """The base container runs."""
        state = {"running": {"startedAt": _now()}}
        self.say(
            name,
            phase="Running",
            startTime=_now(),
            conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": _now()}],
            containerStatuses=[_base(state, ready=True, started=True, containerID="played://1")],
        )

    def ends(self, name: str, code: int = 0) -> None:
        """The base container has ended."""
        end = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "startedAt": _now(),
            "finishedAt": _now(),
            "containerID": "played://1",
        }
        self.say(
            name,
            phase="Failed" if code else "Succeeded",
            containerStatuses=[_base({"terminated": end}, ready=False, containerID="played://1")],
        )

    def refuses(self, name: str) -> None:
        """The kubelet does not take the pod: no container of it has started, nor will."""
        self.say(
            name,
            phase="Failed",
            reason="OutOfcpu",
            message="Pod was rejected: Node didn't have enough resource: cpu",
            startTime=_now(),
        )

    def gone(self, name: str) -> None:
        """The containers have ended: the pod may go, as a kubelet says by a second delete."""
        where = path("pods", self._namespace, name, gracePeriodSeconds=0)
        self._cluster.call("DELETE", where).expect(200)

    def say(self, name: str, **status: Any) -> Object:
        """Patch a pod's status; the pod."""
        where = path("pods", self._namespace, f"{name}/status")
        return self._cluster.call("PATCH", where, {"status": status}, STRATEGIC).expect(200)


def _base(state: Object, **more: Any) -> Object:
    image = {"image": "busybox:1.37", "imageID": ""}
    return {"name": BASE, **image, "restartCount": 0, "state": state, **more}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
