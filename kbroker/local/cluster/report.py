"""A pod's status in a kubelet's words.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

from dataclasses import dataclass

from kbroker.local.cluster.container import Container
from kbroker.local.cluster.store import Object, timestamp

ENDED = ("Succeeded", "Failed")
EVICTED = "Evicted"
DISRUPTED = "DisruptionTarget"
_ADDRESS = "127.0.0.1"
_LOST = {
    "exitCode": 137,
    "reason": "ContainerStatusUnknown",
    "message": "The container could not be located when the pod was terminated",
    "startedAt": None,
    "finishedAt": None,
}


@dataclass
class Report:
    """What a kubelet knows of one pod.

    Attributes:
        started_at: when the kubelet saw the pod, RFC 3339.
        inits: init containers, in order.
        containers: the others.
        mounted: whether containers can be started: the pod's volumes are there.
        phase: the last one, once the pod has ended; "" before.
        reason: why the pod was ended, "" when it ended by itself.
        message: the reason in words.
    """

    started_at: str
    inits: list[Container]
    containers: list[Container]
    mounted: bool = True
    phase: str = ""
    reason: str = ""
    message: str = ""

    def write(self, status: Object, generation: int | None) -> None:
        """Write all of it into a pod's status.

        Args:
            status: where to.
            generation: of the pod's specification.
        """
        phase = self.phase or self._present_phase()
        if generation is not None:
            status["observedGeneration"] = generation
        status["phase"] = phase
        status["startTime"] = self.started_at
        status["hostIP"] = _ADDRESS
        status["hostIPs"] = [{"ip": _ADDRESS}]
        if self.mounted:
            status["podIP"] = _ADDRESS
            status["podIPs"] = [{"ip": _ADDRESS}]
        if self.reason and self.phase:
            status["reason"], status["message"] = self.reason, self.message
        if self.reason == EVICTED and self.phase:
            # A kubelet says so together with the phase, once all containers have ended.
            set_condition(status, DISRUPTED, True, "TerminationByKubelet", self.message)
        if self.inits:
            status["initContainerStatuses"] = [c.status(ready=_done(c)) for c in self.inits]
        status["containerStatuses"] = [c.status(ready=c.ready) for c in self.containers]
        if self.phase:
            self._close(status)
        self._write_conditions(status, phase)

    def _present_phase(self) -> str:
        """The phase of a pod that has not ended.

        A container that waits for its first start keeps it Pending, whatever the others do.
        """
        initialized = all(map(_done, self.inits))
        return "Running" if initialized and all(c.begun for c in self.containers) else "Pending"

    def _close(self, status: Object) -> None:
        """A kubelet's last word leaves no container waiting that could have been started.

        Of init containers these are the first, and those up to the last that was started;
        of the others all, once the init containers are done.
        """
        inits, own = status.get("initContainerStatuses") or [], status["containerStatuses"]
        started = [n for n, each in enumerate(inits) if not _only_waited(each)]
        could = inits[: max(started, default=0) + 1]
        if all(map(_done, self.inits)):
            could = [*could, *own]
        for each in could:
            if "terminated" not in each["state"]:
                each["state"] = {"terminated": dict(_LOST)}

    def _write_conditions(self, status: Object, phase: str) -> None:
        incomplete = [c.name for c in self.inits if not _done(c)]
        unready = [c.name for c in self._awaited() if not c.ready]
        completed = "PodCompleted" if phase == "Succeeded" else ""
        set_condition(status, "PodReadyToStartContainers", self.mounted and phase not in ENDED)
        if incomplete and not completed:
            said = f"containers with incomplete status: {_list(incomplete)}"
            set_condition(status, "Initialized", False, "ContainersNotInitialized", said)
        else:
            set_condition(status, "Initialized", True, completed)
        ready = phase == "Running" and not unready
        why, message = "", ""
        if phase == "Failed":
            why = "PodFailed"
        elif completed:
            why = completed
        elif not ready:
            why, message = "ContainersNotReady", f"containers with unready status: {_list(unready)}"
        set_condition(status, "Ready", ready, why, message)
        set_condition(status, "ContainersReady", ready, why, message)

    def _awaited(self) -> list[Container]:
        """The containers whose readiness makes the pod's."""
        return [*filter(_is_sidecar, self.inits), *self.containers]


def is_sidecar(spec: Object) -> bool:
    """Whether an init container runs beside the others instead of before them.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
    """
    return spec.get("restartPolicy") == "Always"


def _only_waited(status: Object) -> bool:
    return "waiting" in status["state"] and not status["lastState"]


def _is_sidecar(container: Container) -> bool:
    return is_sidecar(container.spec)


def _done(container: Container) -> bool:
    """Whether an init container lets the next one start."""
    return container.started_once if _is_sidecar(container) else container.exit_code == 0


def set_scheduled(status: Object, problem: str) -> None:
    """The PodScheduled condition; `problem` says why no node was found, "" that one was."""
    set_condition(status, "PodScheduled", not problem, "Unschedulable" if problem else "", problem)


def set_condition(
    status: Object, kind: str, true: bool, reason: str = "", message: str = ""
) -> None:
    """Set a condition of a pod; its transition time changes with its status only."""
    conditions = status.setdefault("conditions", [])
    word = "True" if true else "False"
    found = next((c for c in conditions if c["type"] == kind), None)
    if found is None:
        found = {"type": kind, "lastProbeTime": None, "status": ""}
        conditions.append(found)
        conditions.sort(key=lambda c: _ORDER.index(c["type"]) if c["type"] in _ORDER else -1)
    if found["status"] != word:
        found["status"] = word
        found["lastTransitionTime"] = timestamp()
    for name, value in (("reason", reason), ("message", message)):
        if value:
            found[name] = value
        else:
            found.pop(name, None)


_ORDER = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]


def _list(names: list[str]) -> str:
    return f"[{' '.join(names)}]"
