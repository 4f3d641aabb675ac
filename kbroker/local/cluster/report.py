"""A pod's status in a kubelet's words.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

from dataclasses import dataclass

from kbroker.local.cluster.container import Container
from kbroker.local.cluster.store import Object, timestamp

ENDED = ("Succeeded", "Failed")
_ADDRESS = "127.0.0.1"


@dataclass
class Report:
    """What a kubelet knows of one pod.

    Attributes:
        started_at: when the kubelet saw the pod, RFC 3339.
        inits: init containers, in order.
        containers: the others.
        phase: the last one, once the pod has ended; "" before.
        reason: why the pod was ended, "" when it ended by itself.
        message: the reason in words.
    """

    started_at: str
    inits: list[Container]
    containers: list[Container]
    phase: str = ""
    reason: str = ""
    message: str = ""

    def write(self, status: Object) -> None:
        """Write all of it into a pod's status."""
        begun = any(c.begun for c in self.containers)
        phase = self.phase or ("Running" if begun else "Pending")
        status["phase"] = phase
        status["startTime"] = self.started_at
        status["hostIP"] = status["podIP"] = _ADDRESS
        status["hostIPs"] = status["podIPs"] = [{"ip": _ADDRESS}]
        if self.reason and self.phase:
            status["reason"], status["message"] = self.reason, self.message
        if self.inits:
            status["initContainerStatuses"] = [c.status() for c in self.inits]
        status["containerStatuses"] = [c.status() for c in self.containers]
        self._write_conditions(status, phase)

    def _write_conditions(self, status: Object, phase: str) -> None:
        incomplete = [
            c.name
            for c in self.inits
            if c.exit_code != 0 and not (is_sidecar(c.spec) and c.running)
        ]
        unready = [c.name for c in self.containers if not c.running]
        completed = "PodCompleted" if phase == "Succeeded" else ""
        _set(status, "PodReadyToStartContainers", phase not in ENDED)
        if incomplete and not completed:
            said = f"containers with incomplete status: {_list(incomplete)}"
            _set(status, "Initialized", False, "ContainersNotInitialized", said)
        else:
            _set(status, "Initialized", True, completed)
        ready = phase == "Running" and not unready
        why, message = "", ""
        if phase == "Failed":
            why = "PodFailed"
        elif completed:
            why = completed
        elif not ready:
            why, message = "ContainersNotReady", f"containers with unready status: {_list(unready)}"
        _set(status, "Ready", ready, why, message)
        _set(status, "ContainersReady", ready, why, message)


def is_sidecar(spec: Object) -> bool:
    """Whether an init container runs beside the others instead of before them.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
    """
    return spec.get("restartPolicy") == "Always"


def set_scheduled(status: Object, problem: str) -> None:
    """The PodScheduled condition; `problem` says why no node was found, "" that one was."""
    _set(status, "PodScheduled", not problem, "Unschedulable" if problem else "", problem)


def _set(status: Object, kind: str, true: bool, reason: str = "", message: str = "") -> None:
    conditions = status.setdefault("conditions", [])
    word = "True" if true else "False"
    found = next((c for c in conditions if c["type"] == kind), None)
    if found is None:
        found = {"type": kind, "lastProbeTime": None, "status": ""}
        conditions.append(found)
    if found["status"] != word:
        found["status"] = word
        found["lastTransitionTime"] = timestamp()
    for name, value in (("reason", reason), ("message", message)):
        if value:
            found[name] = value
        else:
            found.pop(name, None)


def _list(names: list[str]) -> str:
    return f"[{' '.join(names)}]"
