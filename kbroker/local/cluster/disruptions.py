"""What the world does to pods that did nothing wrong: evictions, preemptions, lost nodes.

Conditions and their reasons:
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from kbroker.local.cluster.events import SCHEDULER, TAINT_MANAGER, Events
from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.report import DISRUPTED, ENDED, set_condition
from kbroker.local.cluster.resources import Resources, check_preconditions
from kbroker.local.cluster.store import Object, Stored

_LOW = (
    "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. "
    "Container {container} was using 64Mi, request is 0, has larger consumption of memory. "
)


class Kubelet(Protocol):
    """What disruptions need of the node."""

    events: Events

    def evict(self, pod: Object, message: str) -> bool:
        """Kill a pod's containers and report it Failed; False when it does not run here."""


class Disruptions:
    """Does to a pod what a real cluster's components do.

    Args:
        resources: the API server's rules.
        node: the node that runs the pods.
    """

    def __init__(self, resources: Resources, node: Kubelet) -> None:
        self._resources = resources
        self._node = node
        self._ways: dict[str, Callable[[Stored], None]] = {
            "evicted": self._evict,
            "preempted": self._preempt,
            "api_evicted": lambda stored: self._evict_by_api(stored, {}),
            "node_lost": self._lose_node,
            "tainted": self._taint,
        }

    def disrupt(self, namespace: str, name: str, way: Any) -> None:
        """Disrupt a pod.

        Args:
            namespace: of the pod.
            name: of the pod.
            way: evicted, preempted, api_evicted, node_lost or tainted.

        Raises:
            Failure: 404, there is no such pod; 400, no such way, or not to a pod in this state.
        """
        step = self._ways.get(way) if isinstance(way, str) else None
        if step is None:
            raise Failure(400, f"no such disruption: {way!r}; there are: {', '.join(self._ways)}")
        stored = self._resources.store.get("pods", namespace, name)
        if way != "api_evicted" and not stored.object["spec"].get("nodeName"):
            raise Failure(400, f"pod {name} is not bound to a node, so it cannot be {way}")
        if way in ("evicted", "preempted") and stored.object["status"]["phase"] in ENDED:
            raise Failure(400, f"pod {name} has ended, so it cannot be {way}")
        step(stored)

    def eviction(self, namespace: str, name: str, body: Any) -> None:
        """POST pods/NAME/eviction: a pod is deleted, and its status says that it was evicted.

        There are no disruption budgets here, so it is never refused with 429.
        https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/

        Args:
            namespace: of the pod.
            name: of the pod.
            body: the Eviction of policy/v1.

        Raises:
            Failure: 400, 404, or 409 where a precondition does not hold.
        """
        metadata = body.get("metadata") if isinstance(body, dict) else None
        given = metadata.get("name") if isinstance(metadata, dict) else None
        if given != name:
            raise Failure(400, "name in URL does not match name in Eviction object")
        options = (body.get("deleteOptions") if isinstance(body, dict) else None) or {}
        if not isinstance(options, dict):
            raise Failure(400, "deleteOptions of the Eviction is not an object")
        store = self._resources.store
        with store.trial() if options.get("dryRun") else contextlib.nullcontext():
            self._evict_by_api(store.get("pods", namespace, name), options)

    def _evict(self, stored: Stored) -> None:
        """The kubelet kills without grace; phase and condition come once all has ended.

        https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
        """
        pod = stored.object
        message = _LOW.format(container=pod["spec"]["containers"][0]["name"])
        if not self._node.evict(pod, message):
            name = pod["metadata"]["name"]
            raise Failure(400, f"pod {name} is on no node of this cluster: no kubelet can evict it")

    def _preempt(self, stored: Stored) -> None:
        """The scheduler makes room; a victim has its whole grace period.

        https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/#preemption
        """
        said = f"{SCHEDULER}: preempting to accommodate a higher priority pod"
        after = self._mark(stored, "PreemptionByScheduler", said)
        self._tell(after, SCHEDULER, "Preempted", "Preempted by a pod of higher priority")
        self._delete(after, {})

    def _evict_by_api(self, stored: Stored, options: Object) -> None:
        check_preconditions("pods", stored, options.get("preconditions") or {})
        after = self._mark(stored, "EvictionByEvictionAPI", "Eviction API: evicting")
        # The condition has made a new version: what was asked of the old one is checked above.
        self._delete(after, {name: x for name, x in options.items() if name != "preconditions"})

    def _lose_node(self, stored: Stored) -> None:
        """Containers end with their node and nobody reports it; the pod garbage collector cleans.

        It sets the phase of a pod that has not ended, then deletes without grace; the container
        statuses stay what the kubelet last said.
        https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection
        """
        if stored.object["status"]["phase"] not in ENDED:
            said = "PodGC: node no longer exists"
            stored = self._mark(stored, "DeletionByPodGC", said, phase="Failed")
        self._delete(stored, {"gracePeriodSeconds": 0})

    def _taint(self, stored: Stored) -> None:
        """The node got a NoExecute taint; its kubelet ends the pod with its grace period.

        https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions
        """
        said = "Taint manager: deleting due to NoExecute taint"
        after = self._mark(stored, "DeletionByTaintManager", said)
        metadata = after.object["metadata"]
        what = f"Marking for deletion Pod {metadata['namespace']}/{metadata['name']}"
        self._tell(after, TAINT_MANAGER, "TaintManagerEviction", what)
        self._delete(after, {})

    def _mark(self, stored: Stored, reason: str, message: str, *, phase: str = "") -> Stored:
        """Say in the pod's status why it is about to go."""
        after = stored.copy()
        set_condition(after["status"], DISRUPTED, True, reason, message)
        if phase:
            after["status"]["phase"] = phase
        return self._resources.store.replace("pods", stored, after)

    def _tell(self, stored: Stored, source: str, reason: str, message: str) -> None:
        self._node.events.record(stored.object, source, "Normal", reason, message)

    def _delete(self, stored: Stored, options: Object) -> None:
        metadata = stored.object["metadata"]
        self._resources.delete("pods", metadata["namespace"], metadata["name"], options)
