"""What may happen to a task's pods, and what the task must come to: one table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kbroker.event import Cause
from tests.integration.stack import Stack

Json = dict[str, Any]
When = Callable[[Json], bool]
Do = Callable[[Stack, str], object]

PODS = "/api/v1/namespaces/default/pods"
LIMIT = 1  # attempts after the first
PENDING = 5.0
EAT = "b = b'x' * 200_000_000; import time; time.sleep(60)"


# When something happens to a pod.


def runs(pod: Json) -> bool:
    """Its container runs."""
    return any("running" in status["state"] for status in _statuses(pod))


def waits(pod: Json) -> bool:
    """It is bound, and the kubelet says why its container does not start."""
    return any(status["state"].get("waiting", {}).get("message") for status in _statuses(pod))


def exists(pod: Json) -> bool:
    """It was created."""
    return bool(pod)


def _statuses(pod: Json) -> list[Json]:
    return pod["status"].get("containerStatuses") or []


# What happens to it.


def disrupted(way: str) -> Do:
    """What the world does."""
    return lambda stack, name: stack.cluster.admin.post(
        f"/_local/pods/default/{name}/disrupt", {"as": way}
    )


def deleted(grace: int | None = None) -> Do:
    """What a user with kubectl does."""
    query = "" if grace is None else f"?gracePeriodSeconds={grace}"
    return lambda stack, name: stack.cluster.admin.delete(f"{PODS}/{name}{query}")


def bound(stack: Stack, name: str) -> None:
    """A scheduler finds a node for it."""
    target = {"kind": "Node", "name": "local"}
    content = {"metadata": {"name": name}, "target": target}
    stack.cluster.admin.post(f"{PODS}/{name}/binding", content)


# Of what kind the task is.


def spec(**content: Any) -> Json:
    return {"pod_override": {"spec": content}}


def base(**content: Any) -> Json:
    return spec(containers=[{"name": "base", **content}])


SECRET = {"secretKeyRef": {"name": "forgotten", "key": "password"}}
INIT = {"name": "prepare", "image": "busybox", "command": ["sh", "-c", "exit 7"]}
UNSCHEDULED = spec(schedulerName="nobody")
THROTTLED = {"image": "throttled.invalid/busybox:1"}


@dataclass(frozen=True)
class Row:
    """A task, what happens to its pods one after another, and what must come of it."""

    task: str
    cause: Cause | None
    exit_code: int | None
    message: tuple[str, ...] = ()
    pods: int = 1
    starts: int = 1
    seconds: float = 60.0
    config: Json = field(default_factory=dict)
    events: tuple[tuple[When, Do], ...] = ()
    command: str = ""


ROWS = [
    # What the world does to a pod that runs: the task fails, and never starts again.
    Row(
        "evicted",
        Cause.EVICTED,
        137,
        ("its node ran short of resources", "TerminationByKubelet", "low on resource: memory"),
        events=((runs, disrupted("evicted")),),
    ),
    Row(
        "preempted",
        Cause.PREEMPTED,
        143,
        ("a pod of higher priority took its place", "PreemptionByScheduler"),
        events=((runs, disrupted("preempted")),),
    ),
    Row(
        "drained",
        Cause.EVICTED,
        143,
        ("as when a node is drained", "Eviction API: evicting"),
        events=((runs, disrupted("api_evicted")),),
    ),
    Row(
        "tainted",
        Cause.NODE_LOST,
        143,
        ("its node became unusable", "DeletionByTaintManager"),
        events=((runs, disrupted("tainted")),),
    ),
    Row(
        "node-lost",
        Cause.NODE_LOST,
        None,
        ("its node is gone", "PodGC: node no longer exists"),
        events=((runs, disrupted("node_lost")),),
    ),
    Row(
        "deleted",
        Cause.DELETED,
        143,
        ("the pod was deleted before it finished", "killed by signal 15"),
        events=((runs, deleted()),),
    ),
    Row(
        "deleted-by-force",
        Cause.DELETED,
        None,
        ("the pod was deleted before it finished",),
        events=((runs, deleted(0)),),
    ),
    Row(
        "out-of-memory",
        Cause.OOM_KILLED,
        137,
        ("the task used more memory than its limit",),
        config={"limit_memory": "64Mi"},
        command=f'exec "{sys.executable}" -S -c "{EAT}"',
    ),
    Row(
        "past-its-deadline",
        Cause.DEADLINE_EXCEEDED,
        143,
        ("longer than its deadline allows", "DeadlineExceeded"),
        config={"active_deadline_seconds": 1},
    ),
    # The same before a container has started: with proof of that it is launched again.
    Row(
        "evicted-early",
        None,
        0,
        pods=2,
        seconds=0.1,
        config=THROTTLED,
        events=((waits, disrupted("evicted")),),
    ),
    Row(
        "preempted-early",
        None,
        0,
        pods=2,
        seconds=0.1,
        config=THROTTLED,
        events=((waits, disrupted("preempted")),),
    ),
    Row(
        "deleted-unbound",
        None,
        0,
        pods=2,
        seconds=0.1,
        config=UNSCHEDULED,
        events=((exists, deleted()), (exists, bound)),
    ),
    Row(
        "drained-unbound",
        None,
        0,
        pods=2,
        seconds=0.1,
        config=UNSCHEDULED,
        events=((exists, disrupted("api_evicted")), (exists, bound)),
    ),
    # The control plane knows nothing of a lost node's containers: no proof.
    Row(
        "node-lost-early",
        Cause.NODE_LOST,
        None,
        ("its node is gone",),
        starts=0,
        config={"image": "registry.invalid/none:1"},
        events=((waits, disrupted("node_lost")),),
    ),
    # What keeps a container from its start.
    Row(
        "imageless",
        Cause.IMAGE_PULL,
        None,
        ("the image of container base cannot be pulled", "registry.invalid/none:1"),
        pods=1 + LIMIT,
        starts=0,
        config={"image": "registry.invalid/none:1"},
    ),
    Row(
        "unconfigured",
        Cause.CONFIG_ERROR,
        None,
        ("container base cannot be started", 'secret "forgotten" not found'),
        pods=1 + LIMIT,
        starts=0,
        config=base(env=[{"name": "PASSWORD", "valueFrom": SECRET}]),
    ),
    Row(
        "unprepared",
        Cause.INIT_FAILED,
        None,
        ("init container prepare ended with exit code 7",),
        pods=1 + LIMIT,
        starts=0,
        config=spec(initContainers=[INIT]),
    ),
    # It may not be launched again so late.
    Row(
        "homeless",
        Cause.UNSCHEDULABLE,
        None,
        (
            f"the pod had not started after {PENDING:g} s",
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        starts=0,
        config={"node_selectors": {"gpu": "yes"}, "launch_timeout": PENDING - 1},
    ),
    Row("throttled", None, 0, seconds=0.1, config=THROTTLED),
]
