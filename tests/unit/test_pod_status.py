"""(event type, pod) → pod event: the rules as tables, over pods as a kubelet writes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.event import Cause, PodEvent, PodState, Started, vanished
from kbroker.pod import Pod
from kbroker.pod_status import pod_event, waiting_verdict
from kbroker.settings import WatcherSettings
from kbroker.task import Launch, TaskKey

ATTEMPT = Launch("test", TaskKey("dag", "task", "run"), "launch-1").attempt(1)
CREATED = "2026-11-23T06:00:00Z"
BEGAN = "2026-11-23T06:00:05Z"
ENDED = "2026-11-23T06:01:00Z"
EPOCH = "1970-01-01T00:00:00Z"
Json = dict[str, Any]


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def container(name: str = "base", last: Json | None = None, **state: Json) -> Json:
    """A container status; the one keyword is its state."""
    status: Json = {
        "name": name,
        "image": "busybox:1.37",
        "imageID": "",
        "ready": "running" in state,
        "started": "running" in state,
        "restartCount": 0 if last is None else 1,
        "state": state,
        "lastState": last or {},
    }
    if "waiting" not in state:
        status["containerID"] = f"containerd://{name}"
    return status


def waiting(reason: str = "ContainerCreating", message: str = "", name: str = "base") -> Json:
    why = {"reason": reason, "message": message} if message else {"reason": reason}
    return container(name, waiting=why)


def running(name: str = "base") -> Json:
    return container(name, running={"startedAt": BEGAN})


def ended(code: int, reason: str = "", name: str = "base", **more: Any) -> Json:
    reason = reason or ("Error" if code else "Completed")
    end = {"exitCode": code, "reason": reason, "startedAt": BEGAN, "finishedAt": ENDED, **more}
    return container(name, terminated={k: v for k, v in end.items() if v is not None})


def pod(  # one keyword for each part of a pod that matters
    phase: str,
    *statuses: Json,
    node: str | None = "node-1",
    init: list[Json] | None = None,
    sidecars: tuple[str, ...] = (),
    conditions: list[Json] | None = None,
    reason: str = "",
    message: str = "",
    restart: str = "Never",
    deleting: bool = False,
    held: bool = False,
    stopped: str = "",
    waits: str = "",
) -> Json:
    metadata = {
        "name": "dag-task-0123456789abcdef0123",
        "namespace": "jobs",
        "uid": "6f0b2b7e-6c1f-4a67-9d8b-1d0f4a3c2b1a",
        "resourceVersion": "4711",
        "creationTimestamp": CREATED,
        "labels": {"kubernetes_executor": "True"},
        "managedFields": [{"manager": "kubelet"}],
    }
    if stopped:
        metadata["annotations"] = {"kbroker/stopped": stopped}
    if waits:
        metadata["annotations"] = {"kbroker/waits": waits}
    if deleting or held:
        metadata["deletionTimestamp"] = ENDED
        metadata["deletionGracePeriodSeconds"] = 0 if held else 30
    spec: Json = {"restartPolicy": restart, "containers": [{"name": "base"}]}
    if node:
        spec["nodeName"] = node
    inits = [{"name": s["name"]} for s in init or [] if s["name"] not in sidecars]
    inits += [{"name": name, "restartPolicy": "Always"} for name in sidecars]
    if inits:
        spec["initContainers"] = inits
    status: Json = {"phase": phase, "qosClass": "BestEffort"}
    if statuses:
        status["containerStatuses"] = list(statuses)
    if init:
        status["initContainerStatuses"] = init
    if conditions:
        status["conditions"] = conditions
    if reason:
        status["reason"] = reason
    if message:
        status["message"] = message
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def disrupted(reason: str, message: str = "") -> list[Json]:
    return [
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": ENDED,
        }
    ]


def unscheduled(reason: str, message: str) -> list[Json]:
    return [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]


DEADLINE = "Pod was active on the node longer than the specified deadline"
NO_CPU = "0/3 nodes are available: 3 Insufficient cpu."
LOW = "The node was low on resource: memory."
EXEC = 'exec: "nope": executable file not found in $PATH'
PULL = "Back-off pulling image"
QPS = "pull QPS exceeded"
NOT_FOUND = "The container could not be located when the pod was terminated"
UNKNOWN_END: Json = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": NOT_FOUND}


def unknown_end(**more: Any) -> Json:
    """What the kubelet writes of a container that it has no word on."""
    return {**container(terminated=UNKNOWN_END), "containerID": "", **more}


START_ERROR = ended(128, "StartError", startedAt=EPOCH, message=EXEC)
CANNOT_RUN = ended(127, "ContainerCannotRun", startedAt=None, finishedAt=None, message=EXEC)

P, R, S, F = PodState.PENDING, PodState.RUNNING, PodState.SUCCEEDED, PodState.FAILED
NEVER, UNKNOWN, YES = Started.NEVER, Started.UNKNOWN, Started.YES
M, D = "MODIFIED", "DELETED"
LATE, BAD_IMAGE = "DeadlineExceeded", "image_pull: no such image: 404"

# name, event type, pod, state, started, cause, exit code, words of the message
TABLE: list[tuple[str, str, Json, PodState, Started, Cause | None, int | None, str]] = [
    # On the way.
    ("created", "ADDED", pod("Pending", node=None), P, UNKNOWN, None, None, ""),
    (
        "unschedulable",
        M,
        pod("Pending", node=None, conditions=unscheduled("Unschedulable", NO_CPU)),
        P,
        UNKNOWN,
        Cause.UNSCHEDULABLE,
        None,
        NO_CPU,
    ),
    (
        "gated",
        M,
        pod("Pending", node=None, conditions=unscheduled("SchedulingGated", "Scheduling is off")),
        P,
        UNKNOWN,
        Cause.UNSCHEDULABLE,
        None,
        "Scheduling is off",
    ),
    ("bound", M, pod("Pending"), P, UNKNOWN, None, None, ""),
    ("creating", M, pod("Pending", waiting()), P, UNKNOWN, None, None, ""),
    (
        "waits for its workload",
        M,
        pod("Pending", waiting(), waits="no Secret yet"),
        P,
        UNKNOWN,
        None,
        None,
        "no Secret yet",
    ),
    (
        "waited for its workload, and now for its image",
        M,
        pod("Pending", waiting("ImagePullBackOff", PULL), waits="no Secret yet"),
        P,
        UNKNOWN,
        Cause.IMAGE_PULL,
        None,
        PULL,
    ),
    (
        "waited for its workload, and runs",
        M,
        pod("Running", running(), waits="no Secret yet"),
        R,
        YES,
        None,
        None,
        "",
    ),
    (
        "image pull",
        M,
        pod("Pending", waiting("ImagePullBackOff", PULL)),
        P,
        UNKNOWN,
        Cause.IMAGE_PULL,
        None,
        f"ImagePullBackOff: {PULL}",
    ),
    (
        "invalid image",
        M,
        pod("Pending", waiting("InvalidImageName", "couldn't parse")),
        P,
        UNKNOWN,
        Cause.IMAGE_PULL,
        None,
        "couldn't parse",
    ),
    (
        "own throttling",
        M,
        pod("Pending", waiting("ErrImagePull", QPS)),
        P,
        UNKNOWN,
        None,
        None,
        QPS,
    ),
    (
        "missing secret",
        M,
        pod("Pending", waiting("CreateContainerConfigError", 'secret "x" not found')),
        P,
        UNKNOWN,
        Cause.CONFIG_ERROR,
        None,
        'secret "x" not found',
    ),
    (
        "no command",
        M,
        pod("Pending", waiting("CreateContainerError", "no command specified")),
        P,
        UNKNOWN,
        Cause.CONFIG_ERROR,
        None,
        "no command specified",
    ),
    (
        "init runs",
        M,
        pod("Pending", waiting("PodInitializing"), init=[running("setup")]),
        P,
        UNKNOWN,
        None,
        None,
        "",
    ),
    (
        "init image pull",
        M,
        pod(
            "Pending",
            waiting("PodInitializing"),
            init=[waiting("ErrImagePull", "denied", name="setup")],
        ),
        P,
        UNKNOWN,
        Cause.IMAGE_PULL,
        None,
        "container setup",
    ),
    (
        "sidecar pulls, base runs not yet",
        M,
        pod("Running", waiting("PodInitializing"), init=[running("proxy")], sidecars=("proxy",)),
        P,
        UNKNOWN,
        None,
        None,
        "",
    ),
    (
        "another container runs, base pulls",
        M,
        pod("Running", waiting("ErrImagePull", "denied"), running("log-shipper")),
        P,
        UNKNOWN,
        Cause.IMAGE_PULL,
        None,
        "container base",
    ),
    (
        "pending and being deleted",
        M,
        pod("Pending", waiting(), deleting=True),
        P,
        UNKNOWN,
        Cause.DELETED,
        None,
        "being deleted",
    ),
    (
        "unbound, deleted, held by its finalizer",
        M,
        pod("Pending", node=None, held=True),
        F,
        NEVER,
        Cause.DELETED,
        None,
        "before a node was found",
    ),
    (
        "the same, seen in a list",
        "ADDED",
        pod("Pending", node=None, held=True),
        F,
        NEVER,
        Cause.DELETED,
        None,
        "before a node was found",
    ),
    (
        "pulls, deleted by force, held by its finalizer",
        M,
        pod("Pending", waiting(), held=True),
        F,
        UNKNOWN,
        Cause.DELETED,
        None,
        "before it finished",
    ),
    (
        "runs, deleted by force, held by its finalizer",
        M,
        pod("Running", running(), held=True),
        F,
        YES,
        Cause.DELETED,
        None,
        "before it finished",
    ),
    (
        "succeeded, deleted, held by its finalizer",
        M,
        pod("Succeeded", ended(0), held=True),
        S,
        YES,
        None,
        0,
        "",
    ),
    *(
        (
            name,
            M,
            pod("Failed", reason=reason, stopped=why, message="own"),
            F,
            NEVER,
            cause,
            None,
            said,
        )
        for name, reason, why, cause, said in (
            ("stopped", LATE, BAD_IMAGE, Cause.IMAGE_PULL, "no such image: 404"),
            ("stopped, but evicted", "Evicted", BAD_IMAGE, Cause.EVICTED, "own"),
            ("stopped by nobody", LATE, "", Cause.DEADLINE_EXCEEDED, "own"),
            ("stopped for no cause", LATE, "x: y", Cause.DEADLINE_EXCEEDED, "own"),
        )
    ),
    ("running", M, pod("Running", running()), R, YES, None, None, ""),
    ("running, seen in a list", "ADDED", pod("Running", running()), R, YES, None, None, ""),
    ("running without statuses", M, pod("Running"), R, YES, None, None, ""),
    (
        "running and being deleted",
        M,
        pod("Running", running(), deleting=True),
        R,
        YES,
        None,
        None,
        "",
    ),
    (
        "restarted by policy",
        M,
        pod(
            "Running",
            container(
                last={"terminated": {"exitCode": 1, "reason": "Error", "startedAt": BEGAN}},
                waiting={"reason": "CrashLoopBackOff"},
            ),
            restart="OnFailure",
        ),
        R,
        YES,
        None,
        None,
        "",
    ),
    (
        "failed, to be restarted",
        M,
        pod("Running", ended(1), restart="OnFailure"),
        R,
        YES,
        None,
        None,
        "",
    ),
    (
        "node does not answer",
        M,
        pod("Unknown", running(), reason="NodeLost", message="Node node-1 is unresponsive"),
        R,
        YES,
        Cause.NODE_LOST,
        None,
        "unresponsive",
    ),
    (
        "unknown before start",
        M,
        pod("Unknown", waiting()),
        P,
        UNKNOWN,
        Cause.NODE_LOST,
        None,
        "node-1",
    ),
    # Success.
    ("succeeded", M, pod("Succeeded", ended(0)), S, YES, None, 0, ""),
    (
        "succeeded while a sidecar runs",
        M,
        pod("Running", ended(0), running("log-shipper")),
        S,
        YES,
        None,
        0,
        "",
    ),
    (
        "succeeded, a sidecar failed",
        M,
        pod("Failed", ended(0), ended(1, name="proxy")),
        S,
        YES,
        None,
        0,
        "",
    ),
    (
        "succeeded, restart policy Always",
        M,
        pod("Running", ended(0), restart="Always"),
        S,
        YES,
        None,
        0,
        "",
    ),
    ("succeeded, without statuses", M, pod("Succeeded"), S, YES, None, None, ""),
    ("succeeded and then deleted", D, pod("Succeeded", ended(0)), S, YES, None, 0, ""),
    # Failure of the task.
    ("failed", M, pod("Failed", ended(3)), F, YES, Cause.ERROR, 3, "exit code 3"),
    (
        "failed while a sidecar runs",
        M,
        pod("Running", ended(2), running("proxy")),
        F,
        YES,
        Cause.ERROR,
        2,
        "exit code 2",
    ),
    (
        "failed though the phase says otherwise",
        M,
        pod("Succeeded", ended(1)),
        F,
        YES,
        Cause.ERROR,
        1,
        "exit code 1",
    ),
    ("killed", M, pod("Failed", ended(137)), F, YES, Cause.ERROR, 137, "signal 9"),
    (
        "its last words",
        M,
        pod("Failed", ended(1, message="disk full")),
        F,
        YES,
        Cause.ERROR,
        1,
        "disk full",
    ),
    (
        "out of memory",
        M,
        pod("Failed", ended(137, "OOMKilled")),
        F,
        YES,
        Cause.OOM_KILLED,
        137,
        "memory",
    ),
    (
        "failed for good by policy",
        M,
        pod("Failed", ended(1), restart="OnFailure"),
        F,
        YES,
        Cause.ERROR,
        1,
        "exit code 1",
    ),
    (
        "killed by its deletion",
        M,
        pod("Running", ended(143), restart="Always", deleting=True),
        F,
        YES,
        Cause.DELETED,
        143,
        "signal 15",
    ),
    (
        "failed by itself while being deleted",
        M,
        pod("Failed", ended(1), deleting=True),
        F,
        YES,
        Cause.ERROR,
        1,
        "exit code 1",
    ),
    # The command could not be started.
    ("no such command", M, pod("Failed", START_ERROR), F, NEVER, Cause.CONFIG_ERROR, 128, EXEC),
    ("container cannot run", M, pod("Failed", CANNOT_RUN), F, NEVER, Cause.CONFIG_ERROR, 127, EXEC),
    (
        "no such command, and a sidecar had run",
        M,
        pod("Failed", START_ERROR, ended(0, name="proxy")),
        F,
        UNKNOWN,
        Cause.CONFIG_ERROR,
        128,
        EXEC,
    ),
    (
        "no such command, the pod goes on",
        M,
        pod("Running", START_ERROR, running("proxy")),
        F,
        UNKNOWN,
        Cause.CONFIG_ERROR,
        128,
        EXEC,
    ),
    # Init containers.
    (
        "init failed",
        M,
        pod("Failed", waiting("PodInitializing"), init=[ended(0, name="a"), ended(4, name="b")]),
        F,
        NEVER,
        Cause.INIT_FAILED,
        None,
        "init container b ended with exit code 4",
    ),
    (
        "a native sidecar's end is no failed init",
        M,
        pod("Failed", ended(1), init=[ended(137, name="proxy")], sidecars=("proxy",)),
        F,
        YES,
        Cause.ERROR,
        1,
        "the command",
    ),
    # The kubelet ended it.
    (
        "deadline",
        M,
        pod("Failed", ended(137), reason="DeadlineExceeded", message=DEADLINE),
        F,
        YES,
        Cause.DEADLINE_EXCEEDED,
        137,
        DEADLINE,
    ),
    (
        "deadline before the start",
        M,
        pod(
            "Failed", waiting("ImagePullBackOff", PULL), reason="DeadlineExceeded", message=DEADLINE
        ),
        F,
        NEVER,
        Cause.DEADLINE_EXCEEDED,
        None,
        f"still waiting: ImagePullBackOff: {PULL}",
    ),
    (
        "deadline, container never made",
        M,
        pod("Failed", unknown_end(), reason="DeadlineExceeded", message=DEADLINE),
        F,
        NEVER,
        Cause.DEADLINE_EXCEEDED,
        None,
        DEADLINE,
    ),
    (
        "evicted, container never made",
        M,
        pod(
            "Failed",
            unknown_end(),
            conditions=disrupted("TerminationByKubelet", LOW),
            reason="Evicted",
            message=LOW,
        ),
        F,
        NEVER,
        Cause.EVICTED,
        None,
        LOW,
    ),
    (
        "deadline, container lost",
        M,
        pod("Failed", unknown_end(containerID="containerd://x"), reason="DeadlineExceeded"),
        F,
        UNKNOWN,
        Cause.DEADLINE_EXCEEDED,
        137,
        "deadline",
    ),
    (
        "a container lost that used to run",
        M,
        pod(
            "Failed",
            unknown_end(restartCount=1, lastState={"terminated": {**UNKNOWN_END}}),
        ),
        F,
        UNKNOWN,
        Cause.ERROR,
        137,
        NOT_FOUND,
    ),
    (
        "a container that has been restarted",
        M,
        pod("Failed", {**waiting(), "restartCount": 1}, reason="DeadlineExceeded"),
        F,
        UNKNOWN,
        Cause.DEADLINE_EXCEEDED,
        None,
        "deadline",
    ),
    (
        "evicted before the start",
        M,
        pod("Failed", reason="Evicted", message=LOW),
        F,
        NEVER,
        Cause.EVICTED,
        None,
        LOW,
    ),
    (
        "evicted by the kubelet",
        M,
        pod(
            "Failed",
            ended(137),
            reason="Evicted",
            conditions=disrupted("TerminationByKubelet", LOW),
        ),
        F,
        YES,
        Cause.EVICTED,
        137,
        LOW,
    ),
    (
        "refused by the kubelet",
        M,
        pod("Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu"),
        F,
        NEVER,
        Cause.UNSCHEDULABLE,
        None,
        "OutOfcpu",
    ),
    (
        "wrong node",
        M,
        pod("Failed", waiting(), reason="NodeAffinity", message="Pod was rejected"),
        F,
        NEVER,
        Cause.UNSCHEDULABLE,
        None,
        "NodeAffinity",
    ),
    (
        "node shutdown",
        M,
        pod("Failed", ended(143), reason="Terminated", message="imminent node shutdown"),
        F,
        YES,
        Cause.EVICTED,
        143,
        "node shutdown",
    ),
    (
        "critical pod came",
        M,
        pod(
            "Failed",
            ended(137),
            reason="Preempting",
            message="Preempted in order to admit critical pod",
        ),
        F,
        YES,
        Cause.PREEMPTED,
        137,
        "critical",
    ),
    # The control plane ended it.
    (
        "preempted",
        M,
        pod("Failed", ended(143), conditions=disrupted("PreemptionByScheduler", "preempting")),
        F,
        YES,
        Cause.PREEMPTED,
        143,
        "higher priority",
    ),
    (
        "preempted before the start",
        M,
        pod("Failed", waiting(), conditions=disrupted("PreemptionByScheduler")),
        F,
        NEVER,
        Cause.PREEMPTED,
        None,
        "higher priority",
    ),
    (
        "drained",
        M,
        pod("Failed", ended(143), conditions=disrupted("EvictionByEvictionAPI")),
        F,
        YES,
        Cause.EVICTED,
        143,
        "drained",
    ),
    (
        "tainted",
        D,
        pod("Running", running(), conditions=disrupted("DeletionByTaintManager")),
        F,
        YES,
        Cause.NODE_LOST,
        None,
        "taint",
    ),
    (
        "node gone before the start: no word of the kubelet's",
        M,
        pod("Failed", waiting(), conditions=disrupted("DeletionByPodGC", "node no longer exists")),
        F,
        UNKNOWN,
        Cause.NODE_LOST,
        None,
        "no longer exists",
    ),
    (
        "lost before the start",
        M,
        pod("Failed", waiting(), reason="NodeLost"),
        F,
        UNKNOWN,
        Cause.NODE_LOST,
        None,
        "does not answer",
    ),
    (
        "a disruption that did not come about",
        M,
        pod("Failed", ended(1), conditions=[{"type": "DisruptionTarget", "status": "False"}]),
        F,
        YES,
        Cause.ERROR,
        1,
        "exit code 1",
    ),
    # Deleted.
    (
        "deleted before it was bound",
        D,
        pod("Pending", node=None),
        F,
        NEVER,
        Cause.DELETED,
        None,
        "before a node",
    ),
    (
        "deleted while waiting on a node",
        D,
        pod("Pending", waiting()),
        F,
        UNKNOWN,
        Cause.DELETED,
        None,
        "deleted",
    ),
    (
        "deleted while bound, without statuses",
        D,
        pod("Pending"),
        F,
        UNKNOWN,
        Cause.DELETED,
        None,
        "deleted",
    ),
    (
        "deleted while running",
        D,
        pod("Running", running(), deleting=True),
        F,
        YES,
        Cause.DELETED,
        None,
        "deleted",
    ),
    ("deleted after a failure", D, pod("Failed", ended(5)), F, YES, Cause.ERROR, 5, "exit code 5"),
    (
        "deleted between restarts",
        D,
        pod("Running", ended(1), restart="Always"),
        F,
        YES,
        Cause.ERROR,
        1,
        "exit code 1",
    ),
    (
        "deleted after the kubelet ended it",
        D,
        pod("Failed", waiting(), deleting=True),
        F,
        NEVER,
        Cause.DELETED,
        None,
        "deleted",
    ),
    (
        "preempted before it was bound",
        D,
        pod("Pending", node=None, conditions=disrupted("PreemptionByScheduler")),
        F,
        NEVER,
        Cause.PREEMPTED,
        None,
        "higher priority",
    ),
]


def event_of(kind: str, body: Json) -> PodEvent:
    event = pod_event(kind, Pod.from_dict(body), ATTEMPT, "east")
    assert event is not None
    return event


@pytest.mark.parametrize(
    ("kind", "body", "state", "started", "cause", "code", "words"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_pod_event(
    kind: str,
    body: Json,
    state: PodState,
    started: Started,
    cause: Cause | None,
    code: int | None,
    words: str,
) -> None:
    event = event_of(kind, body)
    assert (event.state, event.started, event.cause, event.exit_code) == (
        state,
        started,
        cause,
        code,
    )
    assert words in (event.message or "")
    assert bool(event.message) == bool(words)


def test_the_event_says_whose_and_which_pod() -> None:
    event = event_of("ADDED", pod("Running", running()))
    assert event.attempt is ATTEMPT
    assert (event.cluster, event.namespace, event.node) == ("east", "jobs", "node-1")
    assert event.pod == "dag-task-0123456789abcdef0123"
    assert event.uid == "6f0b2b7e-6c1f-4a67-9d8b-1d0f4a3c2b1a"
    assert event.resource_version == 4711


@pytest.mark.parametrize(
    ("kind", "body", "moment"),
    [
        (M, pod("Pending"), CREATED),
        (M, pod("Running", running()), BEGAN),
        (M, pod("Succeeded", ended(0)), ENDED),
        (M, pod("Failed", ended(1)), ENDED),
        (M, pod("Failed", conditions=disrupted("DeletionByPodGC")), ENDED),
        (
            D,
            pod("Running", conditions=[{"type": "Ready", "lastTransitionTime": BEGAN}]),
            BEGAN,
        ),
    ],
)
def test_when_it_happened_is_the_clusters_word(kind: str, body: Json, moment: str) -> None:
    assert event_of(kind, body).at == at(moment)


def test_no_moment_is_made_up() -> None:
    assert event_of(M, pod("Failed", reason="Evicted")).at is None


@pytest.mark.parametrize("kind", ["BOOKMARK", "ERROR", "", "modified"])
def test_other_types_mean_nothing(kind: str) -> None:
    assert pod_event(kind, Pod.from_dict(pod("Running")), ATTEMPT, "east") is None


@pytest.mark.parametrize("kind", [M, D])
def test_nothing_is_said_of_a_command_that_never_ran(kind: str) -> None:
    """The kubelet gives an exit code to every container of a pod that it ends, made or not."""
    body = pod("Failed", unknown_end(), deleting=True)
    event = pod_event(kind, Pod.from_dict(body), ATTEMPT, "east")
    assert event is not None
    assert (event.state, event.started, event.exit_code) == (F, NEVER, None)
    assert event.cause is Cause.DELETED
    assert event.message == "the pod was deleted before it finished"


@pytest.mark.parametrize("missing", ["name", "uid"])
def test_an_object_without_identity_means_nothing(missing: str) -> None:
    body = pod("Running")
    del body["metadata"][missing]
    assert pod_event(M, Pod.from_dict(body), ATTEMPT, "east") is None


RICH = [
    pod("Failed", ended(1), running("b"), init=[ended(1, name="i"), running("s")], sidecars=("s",)),
    pod("Pending", waiting("ErrImagePull", "x"), conditions=unscheduled("U", "m"), deleting=True),
    pod("Failed", unknown_end(), conditions=disrupted("DeletionByPodGC"), reason="Evicted"),
    pod("Unknown", START_ERROR, reason="NodeLost", message="m", restart="Always"),
]


@st.composite
def thinned(draw: st.DrawFn) -> Json:
    """A pod with any of its fields missing."""

    def thin(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: thin(v) for k, v in value.items() if draw(st.integers(0, 4))}
        if isinstance(value, list):
            return [thin(v) for v in value if draw(st.integers(0, 4))]
        return value

    body: Json = thin(draw(st.sampled_from(RICH)))
    return body


@given(thinned(), st.sampled_from(["ADDED", "MODIFIED", "DELETED"]))
def test_any_fields_may_be_missing(body: Json, kind: str) -> None:
    event = pod_event(kind, Pod.from_dict(body), ATTEMPT, "east")
    if event is None:
        return
    assert PodEvent.decode(event.encode()) == event
    if kind == D:
        assert event.final
    if event.started is Started.NEVER:
        assert event.state is PodState.FAILED
    if event.state is PodState.FAILED:
        assert event.cause is not None
        assert event.message


@given(thinned())
def test_never_is_not_claimed_of_a_pod_whose_base_ran(body: Json) -> None:
    """Whatever else is missing: a base container that is said to have run did run."""
    status = body.setdefault("status", {})
    status["containerStatuses"] = [running()]
    event = pod_event(D, Pod.from_dict(body), ATTEMPT, "east")
    assert event is None or event.started is Started.YES


@pytest.mark.parametrize(
    ("state", "started"),
    [(PodState.RUNNING, Started.YES), (PodState.PENDING, Started.UNKNOWN)],
)
def test_vanished(state: PodState, started: Started) -> None:
    last = event_of(M, pod("Pending")).changed(state=state, cause=Cause.IMAGE_PULL, message="x")
    gone = vanished(last, 5000)
    assert (gone.state, gone.cause, gone.started) == (PodState.FAILED, Cause.VANISHED, started)
    assert (gone.uid, gone.resource_version) == (last.uid, 5000)
    assert state in (gone.message or "")


NOW = 1_800_000_000.0
SETTINGS = WatcherSettings(pending_timeout=600, fatal_waiting_grace=30)


def pending(body: Json, age: float) -> PodEvent:
    return event_of(M, body).changed(at=NOW - age)


PULLING = pod("Pending", waiting("ImagePullBackOff", PULL))
NO_NODE = pod("Pending", node=None, conditions=unscheduled("Unschedulable", NO_CPU))

# name, pod, its age, seconds since the cause was first seen, verdict, words
VERDICTS: list[tuple[str, Json, float, float, Cause | None, str]] = [
    ("young", pod("Pending", waiting()), 1, 1, None, ""),
    ("image pull, at first", PULLING, 100, 29, None, ""),
    ("image pull, for good", PULLING, 100, 30, Cause.IMAGE_PULL, PULL),
    ("image pull, late", PULLING, 600, 1, Cause.IMAGE_PULL, "600 s"),
    (
        "config",
        pod("Pending", waiting("CreateContainerConfigError", "x")),
        31,
        31,
        Cause.CONFIG_ERROR,
        "x",
    ),
    ("own throttling", pod("Pending", waiting("ErrImagePull", QPS)), 599, 599, None, ""),
    (
        "own throttling, for ever",
        pod("Pending", waiting("ErrImagePull", QPS)),
        600,
        600,
        Cause.PENDING_TIMEOUT,
        QPS,
    ),
    ("no node yet", NO_NODE, 599, 599, None, ""),
    ("no node", NO_NODE, 600, 5, Cause.UNSCHEDULABLE, NO_CPU),
    ("bound and silent", pod("Pending"), 600, 600, Cause.PENDING_TIMEOUT, "600 s"),
    ("running", pod("Running", running()), 6000, 6000, None, ""),
    ("finished", pod("Failed", ended(1)), 6000, 6000, None, ""),
]


@pytest.mark.parametrize(
    ("body", "age", "since", "cause", "words"),
    [row[1:] for row in VERDICTS],
    ids=[row[0] for row in VERDICTS],
)
def test_waiting_verdict(
    body: Json, age: float, since: float, cause: Cause | None, words: str
) -> None:
    verdict = waiting_verdict(pending(body, age), NOW, NOW - since, SETTINGS)
    assert (verdict and verdict.cause) == cause
    assert verdict is None or words in verdict.message


def test_without_a_creation_time_the_first_sight_counts() -> None:
    event = event_of(M, pod("Pending")).changed(at=None)
    assert waiting_verdict(event, NOW, NOW - 599, SETTINGS) is None
    assert waiting_verdict(event, NOW, NOW - 600, SETTINGS) is not None


def test_a_verdict_needs_only_the_event_as_it_stands_in_the_picture() -> None:
    event = PodEvent.decode(pending(PULLING, 40).encode())
    verdict = waiting_verdict(event, NOW, NOW - 40, SETTINGS)
    assert verdict is not None
    assert verdict.cause is Cause.IMAGE_PULL
