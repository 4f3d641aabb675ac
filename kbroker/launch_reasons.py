"""Why a launch waits or failed, in words that a task's author understands."""

from __future__ import annotations

from datetime import UTC, datetime

from kbroker.event import Cause, PodEvent
from kbroker.message import LaunchMessage
from kbroker.naming import DEPLOYMENT, attempt_from_annotations
from kbroker.pod import Pod

_WAITS = {
    Cause.ADMISSION: "the Kubernetes API refuses the pod for now",
    Cause.QUOTA: "no room in the namespace",
    Cause.THROTTLED: "the Kubernetes API is busy",
}


def waits(cause: Cause, message: str) -> str:
    """Why a launch is parked, with the API server's own words."""
    return f"{_WAITS.get(cause, 'the Kubernetes API did not do what it was asked')}: {message}"


def no_room(message: str) -> str:
    """The API server's refusal without the pod's name: the same for all of a namespace."""
    return message[max(0, message.find("exceeded quota")) :]


def not_ready(problem: str) -> str:
    """Why a launch waits while the launcher itself is refused."""
    return f"the launcher is not ready: {problem}"


def since(event: PodEvent, moment: int) -> PodEvent:
    """The event with since when (ms) it waits: the same text at every look, so told once."""
    start = datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="seconds")
    return event.changed(message=f"{event.message} (waiting since {start})")


def held_by(pod: Pod) -> str:
    """Whose pod it is that holds the name."""
    deployment = pod.annotations.get(DEPLOYMENT)
    attempt = attempt_from_annotations(pod.annotations)
    if attempt is not None:
        whose = f"of deployment {deployment!r}, task {attempt.launch.key}, attempt {attempt.number}"
    elif deployment is not None:
        whose = f"of deployment {deployment!r}, with unreadable annotations"
    else:
        whose = "that kbroker did not create"
    return f"the name {pod.name} is held by a pod {whose} (uid {pod.uid}): delete it to go on"


def expired(message: LaunchMessage, now: int) -> str:
    """How long a launch waited, and how long it may; `now` in ms."""
    waited = max(0, now - message.enqueued_at) / 1000
    limit = ((message.expires_at or 0) - message.enqueued_at) / 1000
    return f"not launched: it waited {waited:.1f} s for a launcher or for room; limit {limit:.1f} s"
