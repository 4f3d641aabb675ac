"""What a pod's state means for its task: (event type, pod) → pod event. No I/O.

The `base` container decides. Once it has terminated the outcome is final, even
while sidecars run on; before that the pod's phase tells. `Started.NEVER` is
claimed only with proof, because the launch is then repeated: the last object of a
deleted pod was not bound to a node, or the kubelet itself ended the pod and no
container of it (init containers aside) had started.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.pod import ContainerStatus, Pod, Terminated, seconds
from kbroker.pod_failure import (
    base_end,
    base_status,
    deletion,
    disruption,
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

_Event = Callable[..., PodEvent]


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
    if event_type not in _TYPES or not pod.name or not pod.uid:
        return None
    event = partial(
        PodEvent,
        attempt=attempt,
        cluster=cluster,
        namespace=pod.namespace,
        pod=pod.name,
        uid=pod.uid,
        resource_version=pod.resource_version,
        node=pod.node,
    )
    end = base_end(pod)
    if end is not None and _final(end, pod, event_type):
        if end.exit_code == 0:
            return _succeeded(event, pod, end.exit_code)
        return _failed(event, pod, end.exit_code)
    if pod.phase == "Succeeded":
        return _succeeded(event, pod, None)
    if pod.phase == "Failed":
        return _failed(event, pod, None)
    if event_type == DELETED or pod.only_held:
        return _deleted(event, pod)
    return _alive(event, pod, base_status(pod))


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


def _succeeded(event: _Event, pod: Pod, exit_code: int | None) -> PodEvent:
    return event(
        state=PodState.SUCCEEDED, started=Started.YES, exit_code=exit_code, at=_ended_at(pod)
    )


def _failed(event: _Event, pod: Pod, exit_code: int | None) -> PodEvent:
    cause, message = verdict(pod, failure(pod))
    return event(
        state=PodState.FAILED,
        started=_started(pod),
        cause=cause,
        exit_code=exit_code,
        message=message,
        at=_ended_at(pod),
    )


def _deleted(event: _Event, pod: Pod) -> PodEvent:
    cause, message = verdict(pod, deletion(pod))
    started = _started(pod)
    if started is Started.UNKNOWN and pod.node is None:
        started = Started.NEVER
    return event(
        state=PodState.FAILED,
        started=started,
        cause=cause,
        message=message,
        at=_ended_at(pod),
    )


def _alive(event: _Event, pod: Pod, base: ContainerStatus | None) -> PodEvent:
    runs = pod.phase == "Running" if base is None else has_started(base)
    why = deletion(pod) if node_lost(pod) else None if runs else waiting_reason(pod)
    cause, message = why or (None, None)
    if runs:
        return event(
            state=PodState.RUNNING,
            started=Started.YES,
            cause=cause,
            message=message,
            at=_running_since(pod, base),
        )
    created = seconds(pod.metadata.creation_timestamp)
    return event(state=PodState.PENDING, cause=cause, message=message, at=created)


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


def _ended_at(pod: Pod) -> float | None:
    """When a pod ended, by its own status: the base container's end, else the last change."""
    end = base_end(pod)
    target = disruption(pod)
    moment = (end and seconds(end.finished_at)) or (target and seconds(target.last_transition_time))
    if moment:
        return moment
    ends = [state.terminated for state in (s.state for s in own_statuses(pod)) if state]
    times = [seconds(end.finished_at) for end in ends if end is not None]
    times += [seconds(c.last_transition_time) for c in status_of(pod).conditions or []]
    return max((found for found in times if found is not None), default=None)
