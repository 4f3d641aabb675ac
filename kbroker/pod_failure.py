"""Why a pod failed or waits: causes and sentences, from a Pod's status alone.

Sources of the rules: pod conditions and their reasons in
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions,
container states in https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/,
waiting reasons in the kubelet's `pkg/kubelet/images/types.go` and
`pkg/kubelet/kuberuntime`, rejections by the kubelet in `pkg/kubelet/lifecycle`.
"""

from __future__ import annotations

from typing import NamedTuple

from kbroker.event import BY_STOPPING, Cause
from kbroker.naming import STOPPED, WAITS
from kbroker.pod import (
    BASE,
    Condition,
    ContainerState,
    ContainerStatus,
    Pod,
    Status,
    Terminated,
    seconds,
)


class Reason(NamedTuple):
    """A cause, and a sentence for the task's author; no cause for a wait that is normal."""

    cause: Cause | None
    message: str


IMAGE_PULL = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
CONFIG_ERROR = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "PreCreateHookError",
        "PreStartHookError",
        "PostStartHookError",
        "RunContainerError",
        "StartError",
        "ContainerCannotRun",
    }
)
# The runtime made the container and could not start its first process.
_NOT_STARTED = frozenset({"StartError", "ContainerCannotRun"})
# The kubelet ended the pod and has no word of the runtime on this container.
_NOT_FOUND = "ContainerStatusUnknown"

_DISRUPTIONS = {
    "PreemptionByScheduler": (Cause.PREEMPTED, "a pod of higher priority took its place"),
    "EvictionByEvictionAPI": (Cause.EVICTED, "it was evicted, as when a node is drained"),
    "TerminationByKubelet": (Cause.EVICTED, "its node ran short of resources or was shut down"),
    "DeletionByPodGC": (Cause.NODE_LOST, "its node is gone"),
    "DeletionByTaintManager": (Cause.NODE_LOST, "its node became unusable (a taint)"),
    "DeletionByDeviceTaintManager": (Cause.NODE_LOST, "a device of its node became unusable"),
}
# SIGKILL and SIGTERM, as 128 + n: what the kubelet ends containers with.
_KILLED = frozenset({137, 143})
# Set by the control plane while the kubelet may be out of reach: no word of the kubelet's.
_WITHOUT_KUBELET = frozenset({"DeletionByPodGC"})

_SHUTDOWN = (Cause.EVICTED, "the node was being shut down")
_STATUS_REASONS = {
    "Evicted": (Cause.EVICTED, "the node evicted the pod"),
    "Preempting": (Cause.PREEMPTED, "the node needed its place for a critical pod"),
    "Shutdown": _SHUTDOWN,
    "NodeShutdown": _SHUTDOWN,
    "Terminated": _SHUTDOWN,
}


def status_of(pod: Pod) -> Status:
    """The pod's status; an empty one where it has none."""
    return pod.status or Status()


def own_statuses(pod: Pod) -> list[ContainerStatus]:
    """The statuses of the pod's containers, init containers aside."""
    return status_of(pod).container_statuses or []


def disruption(pod: Pod) -> Condition | None:
    """The pod's DisruptionTarget condition, if it is true."""
    found = condition(pod, "DisruptionTarget")
    return found if found is not None and found.status == "True" else None


def condition(pod: Pod, kind: str) -> Condition | None:
    """The pod's condition of this type."""
    for found in status_of(pod).conditions or []:
        if found.type == kind:
            return found
    return None


def base_status(pod: Pod) -> ContainerStatus | None:
    """The status of the container that runs the task."""
    for found in own_statuses(pod):
        if found.name == BASE:
            return found
    return None


def base_end(pod: Pod) -> Terminated | None:
    """How the base container ended; None while it has not."""
    return end_of(base_status(pod))


def end_of(status: ContainerStatus | None) -> Terminated | None:
    """How a container ended; None while it has not, and without a status.

    The kubelet gives an end, with an exit code, to every container of a pod that it ends:
    that of a container that was never made says nothing.
    """
    if status is None or status.state is None:
        return None
    end = status.state.terminated
    if end is None or end.reason != _NOT_FOUND:
        return end
    return None if never_started(status) else end


def has_started(status: ContainerStatus) -> bool:
    """Whether a container's process ran, now or before a restart."""
    if status.started:
        return True
    states = [state for state in (status.state, status.last_state) if state is not None]
    if any(state.running is not None for state in states):
        return True
    ends = [state.terminated for state in states if state.terminated is not None]
    return any(
        seconds(end.started_at) is not None or end.reason not in _NOT_STARTED | {_NOT_FOUND}
        for end in ends
    )


def never_started(status: ContainerStatus) -> bool:
    """Whether a kubelet's last word on a container proves that its process never ran."""
    before = status.last_state or ContainerState()
    if has_started(status) or status.restart_count or before != ContainerState():
        return False
    end = _state(status).terminated
    # A container that the kubelet lost sight of has an id; one that was never made has none.
    return end is None or end.reason in _NOT_STARTED or not status.container_id


def none_started(pod: Pod) -> bool:
    """Whether no container of the pod, init containers aside, has ever started."""
    return all(map(never_started, own_statuses(pod)))


def kubelet_wrote(pod: Pod) -> bool:
    """Whether a terminal phase is the kubelet's own word, not a guess of the control plane."""
    target = disruption(pod)
    if target is not None and target.reason in _WITHOUT_KUBELET:
        return False
    return pod.phase in ("Succeeded", "Failed") and not node_lost(pod)


def node_lost(pod: Pod) -> bool:
    """Whether the control plane says that the pod's node does not answer."""
    return pod.phase == "Unknown" or status_of(pod).reason == "NodeLost"


def failure(pod: Pod) -> Reason:
    """Why a pod failed whose phase, or whose base container, says that it did."""
    found = _by_disruption(pod) or _by_status(pod)
    if found is not None:
        return found
    end = base_end(pod)
    if pod.metadata.deletion_timestamp and (end is None or end.exit_code in _KILLED):
        words = "" if end is None else f"the command {_ended(end)}"
        return Reason(Cause.DELETED, _say("the pod was deleted before it finished", words))
    if end is not None:
        return _by_base(end)
    status = status_of(pod)
    return _failed_init(pod) or Reason(
        Cause.ERROR, _say("the pod failed", _words(status.reason, status.message))
    )


def deletion(pod: Pod) -> Reason:
    """Why a pod is gone that was not finished."""
    found = _by_disruption(pod) or _by_status(pod)
    if found is not None:
        return found
    if pod.node is None:
        return Reason(Cause.DELETED, "the pod was deleted before a node was found for it")
    return Reason(Cause.DELETED, "the pod was deleted before it finished")


def verdict(pod: Pod, found: Reason) -> Reason:
    """What the pod was stopped for, where being stopped is what it failed of."""
    cause, _, message = pod.annotations.get(STOPPED, "").partition(": ")
    if found.cause not in BY_STOPPING or cause not in set(Cause):
        return found
    return Reason(Cause(cause), message)


def waiting_reason(pod: Pod) -> Reason | None:
    """Why a pod has not started yet; None for the normal course of things.

    No cause comes with a wait that will pass by itself.
    """
    if pod.metadata.deletion_timestamp:
        return Reason(Cause.DELETED, "the pod is being deleted")
    scheduled = None if pod.node else condition(pod, "PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        words = _words(None, scheduled.message) or scheduled.reason
        return Reason(Cause.UNSCHEDULABLE, _say("no node can run the pod", words))
    # The init containers first, as they start; then the task's own.
    own = sorted(own_statuses(pod), key=lambda status: status.name != BASE)
    for status in (*(status_of(pod).init_container_statuses or []), *own):
        found = _by_waiting(status)
        if found is not None:
            return found
    why = pod.annotations.get(WAITS)
    return Reason(None, why) if why else None


def _state(status: ContainerStatus | None) -> ContainerState:
    return (status and status.state) or ContainerState()


def _by_waiting(status: ContainerStatus) -> Reason | None:
    why = _state(status).waiting
    if why is None or not why.reason:
        return None
    words = _words(why.reason, why.message)
    if why.reason in IMAGE_PULL:
        # The kubelet throttles itself, and pulls again by itself.
        if "pull QPS exceeded" in (why.message or ""):
            return Reason(None, _say(f"the image of container {status.name} waits its turn", words))
        return Reason(
            Cause.IMAGE_PULL, _say(f"the image of container {status.name} cannot be pulled", words)
        )
    if why.reason in CONFIG_ERROR:
        return Reason(Cause.CONFIG_ERROR, _say(f"container {status.name} cannot be started", words))
    return None


def _by_disruption(pod: Pod) -> Reason | None:
    target = disruption(pod)
    if target is None:
        return None
    cause, words = _DISRUPTIONS.get(
        target.reason or "", (Cause.EVICTED, "Kubernetes had to end it")
    )
    detail = target.message or status_of(pod).message
    return Reason(cause, _say(f"the pod was disrupted: {words}", _words(target.reason, detail)))


def _by_status(pod: Pod) -> Reason | None:
    status = status_of(pod)
    words = _words(status.reason, status.message)
    if node_lost(pod):
        where = f"node {pod.node}" if pod.node else "its node"
        return Reason(Cause.NODE_LOST, _say(f"{where} does not answer", words))
    if status.reason == "DeadlineExceeded":
        return _by_deadline(pod, words)
    known = _STATUS_REASONS.get(status.reason or "")
    if known is not None:
        cause, sentence = known
        return Reason(cause, _say(sentence, words))
    if status.reason and pod.phase == "Failed" and none_started(pod):
        # Rejected by the kubelet: OutOfcpu, NodeAffinity, UnexpectedAdmissionError, ...
        return Reason(Cause.UNSCHEDULABLE, _say("the node refused the pod", words))
    return None


def _by_deadline(pod: Pod, words: str) -> Reason:
    why = _state(base_status(pod)).waiting
    text = _say("the pod took longer than its deadline allows", words)
    if why is not None and why.reason not in (None, "ContainerCreating", "PodInitializing"):
        text = _say(f"{text}; container {BASE} was still waiting", _words(why.reason, why.message))
    return Reason(Cause.DEADLINE_EXCEEDED, text)


def _by_base(end: Terminated) -> Reason:
    if end.reason == "OOMKilled":
        return Reason(
            Cause.OOM_KILLED,
            _say("the task used more memory than its limit and was killed", end.message),
        )
    if end.reason in CONFIG_ERROR and seconds(end.started_at) is None:
        return Reason(
            Cause.CONFIG_ERROR,
            _say("the command could not be started", _words(end.reason, end.message)),
        )
    return Reason(Cause.ERROR, _say(f"the command {_ended(end)}", end.message))


def _failed_init(pod: Pod) -> Reason | None:
    # Native sidecars run beside the task; how they end decides nothing.
    asked = (pod.spec and pod.spec.init_containers) or []
    sidecars = {x.name for x in asked if x.restart_policy == "Always"}
    for status in status_of(pod).init_container_statuses or []:
        end = _state(status).terminated
        if end is not None and end.exit_code != 0 and status.name not in sidecars:
            return Reason(
                Cause.INIT_FAILED, _say(f"init container {status.name} {_ended(end)}", end.message)
            )
    return None


def _ended(end: Terminated) -> str:
    code = end.exit_code or 0
    text = f"ended with exit code {code}"
    number = end.signal or (code - 128 if 128 < code < 160 else 0)
    if number:
        text += f" (killed by signal {number})"
    return text if end.reason in (None, "", "Error") else f"{text} ({end.reason})"


def _words(reason: str | None, message: str | None) -> str:
    """Kubernetes' own words."""
    parts = [part.strip() for part in (reason, message) if part and part.strip()]
    return ": ".join(parts)


def _say(sentence: str, words: str | None) -> str:
    text = (words or "").strip()
    return f"{sentence}: {text}" if text else sentence
