"""What a pod's state means for its task: (event type, pod) → pod event. No I/O.

The `base` container decides. Once it has terminated the outcome is final, even
while sidecars run on; before that the pod's phase tells. `Started.NEVER` is
claimed only with proof, because the launch is then repeated: the last object of a
deleted pod was not bound to a node, or the kubelet itself ended the pod and no
container of it (init containers aside) had started.
"""

from __future__ import annotations

from typing import NamedTuple

from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.pod import ContainerStatus, Pod, Terminated, seconds
from kbroker.pod_failure import (
    base_status,
    deletion,
    disruption,
    end_of,
    failure,
    has_started,
    kubelet_wrote,
    node_lost,
    none_started,
    own_statuses,
    status_of,
    verdict,
    waiting_reason,
)
from kbroker.settings import WatcherSettings
from kbroker.task import Attempt

DELETED = "DELETED"
_TYPES = frozenset({"ADDED", "MODIFIED", DELETED})
_TERMINAL = frozenset({"Succeeded", "Failed"})


class _Meaning(NamedTuple):
    """What a pod's state says of its attempt: these fields of a `PodEvent`."""

    state: PodState
    started: Started = Started.UNKNOWN
    cause: Cause | None = None
    exit_code: int | None = None
    message: str | None = None
    at: float | None = None


def pod_event(event_type: str, pod: Pod, attempt: Attempt, cluster: str) -> PodEvent | None:
    """The event that a watch event (or a listed pod, as "ADDED") means.

    Args:
        event_type: ADDED, MODIFIED or DELETED.
        pod: the pod; for DELETED as it last was.
        attempt: whose pod it is.
        cluster: name of the cluster.

    Returns:
        None for another type of event, or for an object without name and uid.
    """
    metadata = pod.metadata
    if event_type not in _TYPES or not metadata.name or not metadata.uid:
        return None
    state, started, cause, exit_code, message, at = _meaning(event_type, pod)
    return PodEvent(
        attempt=attempt,
        cluster=cluster,
        namespace=metadata.namespace,
        pod=metadata.name,
        state=state,
        uid=metadata.uid,
        resource_version=pod.resource_version,
        started=started,
        cause=cause,
        exit_code=exit_code,
        message=message,
        node=pod.node,
        at=at,
    )


def _meaning(event_type: str, pod: Pod) -> _Meaning:
    base = base_status(pod)
    end = end_of(base)
    if end is not None and _final(end, pod, event_type):
        if end.exit_code == 0:
            return _succeeded(pod, end, end.exit_code)
        return _failed(pod, end, end.exit_code)
    phase = pod.phase
    if phase == "Succeeded":
        return _succeeded(pod, end, None)
    if phase == "Failed":
        return _failed(pod, end, None)
    if event_type == DELETED or pod.only_held:
        return _deleted(pod, end)
    return _alive(pod, base)


class Verdict(NamedTuple):
    """Why a pod that has not started must go: what its failure is to be called, and words."""

    cause: Cause
    message: str


_FATAL = frozenset({Cause.IMAGE_PULL, Cause.CONFIG_ERROR})


def waiting_verdict(
    event: PodEvent, now: float, since: float, settings: WatcherSettings
) -> Verdict | None:
    """Judge a pod that has not started, by its last event alone; None lets it wait.

    An event that says why a pod waits is enough, so a watcher that takes over can
    judge pods that it has never seen itself.

    Args:
        event: the pod's last event.
        now: seconds since the epoch.
        since: when this cause was first seen, likewise.
        settings: how long pods may wait.
    """
    if event.state is not PodState.PENDING:
        return None
    if event.cause in _FATAL and now - since >= settings.fatal_waiting_grace:
        return Verdict(event.cause, event.message or f"the pod cannot start: {event.cause}")
    created = since if event.at is None else min(event.at, since)
    if now - created < settings.pending_timeout:
        return None
    limit = f"the pod had not started after {settings.pending_timeout:g} s"
    text = f"{limit}: {event.message}" if event.message else limit
    if event.cause in _FATAL or event.cause is Cause.UNSCHEDULABLE:
        return Verdict(event.cause, text)
    return Verdict(Cause.PENDING_TIMEOUT, text)


def _final(end: Terminated, pod: Pod, event_type: str) -> bool:
    """Whether a terminated base container will not be restarted."""
    policy = (pod.spec and pod.spec.restart_policy) or "Never"
    if end.exit_code == 0 or policy == "Never":
        return True
    return (
        pod.phase in _TERMINAL
        or event_type == DELETED
        or pod.metadata.deletion_timestamp is not None
    )


def _succeeded(pod: Pod, end: Terminated | None, exit_code: int | None) -> _Meaning:
    at = _ended_at(pod, end)
    return _Meaning(PodState.SUCCEEDED, Started.YES, exit_code=exit_code, at=at)


def _failed(pod: Pod, end: Terminated | None, exit_code: int | None) -> _Meaning:
    cause, message = verdict(pod, failure(pod))
    at = _ended_at(pod, end)
    return _Meaning(PodState.FAILED, _started(pod), cause, exit_code, message, at)


def _deleted(pod: Pod, end: Terminated | None) -> _Meaning:
    cause, message = verdict(pod, deletion(pod))
    started = _started(pod)
    if started is Started.UNKNOWN and pod.node is None:
        started = Started.NEVER
    return _Meaning(PodState.FAILED, started, cause, message=message, at=_ended_at(pod, end))


def _alive(pod: Pod, base: ContainerStatus | None) -> _Meaning:
    runs = pod.phase == "Running" if base is None else has_started(base)
    why = deletion(pod) if node_lost(pod) else None if runs else waiting_reason(pod)
    cause, message = why or (None, None)
    if runs:
        at = _running_since(pod, base)
        return _Meaning(PodState.RUNNING, Started.YES, cause, message=message, at=at)
    created = seconds(pod.metadata.creation_timestamp)
    return _Meaning(PodState.PENDING, cause=cause, message=message, at=created)


def _started(pod: Pod) -> Started:
    """What a pod that has ended proves about its containers."""
    base = base_status(pod)
    if base is not None and has_started(base):
        return Started.YES
    if kubelet_wrote(pod) and none_started(pod):
        return Started.NEVER
    return Started.UNKNOWN


def _running_since(pod: Pod, base: ContainerStatus | None) -> float | None:
    for state in () if base is None else (base.state, base.last_state):
        began = state and (state.running or state.terminated)
        if began is not None:
            return seconds(began.started_at)
    return seconds(status_of(pod).start_time)


def _ended_at(pod: Pod, end: Terminated | None) -> float | None:
    """When a pod ended, by its own status: the base container's end, else the last change."""
    moment = end and seconds(end.finished_at)
    if moment:
        return moment
    target = disruption(pod)
    moment = target and seconds(target.last_transition_time)
    if moment:
        return moment
    ends = [state.terminated for state in (s.state for s in own_statuses(pod)) if state]
    times = [seconds(end.finished_at) for end in ends if end is not None]
    times += [seconds(c.last_transition_time) for c in status_of(pod).conditions or []]
    return max((found for found in times if found is not None), default=None)
