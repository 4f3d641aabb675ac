"""What a kubelet makes of pods: containers really run."""

from __future__ import annotations

from typing import Any

import pytest

from kbroker.event import Cause, PodState, Started
from kbroker.pod import Pod
from kbroker.pod_status import pod_event
from kbroker.task import Launch, TaskKey
from tests.conformance.cluster import Object, poll
from tests.conformance.pods import Pods

pytestmark = pytest.mark.kubelet

ATTEMPT = Launch("kbroker", TaskKey("dag", "task", "run"), "launch").attempt(1)
SHELL = ("sh", "-c")
# Images have to be pulled.
WITHIN = 90.0


def start(pods: Pods, *command: str, **spec: Any) -> Pod:
    """Create a pod for whatever nodes there are."""
    return pods.create(*command, schedulerName="default-scheduler", **spec)


def until_phase(pods: Pods, pod: Pod, *phases: str) -> Pod:
    """The pod once it is in one of these phases."""

    def reached() -> Pod | None:
        found = pods.get(pod.name)
        return found if found.phase in phases else None

    found = poll(f"{pod.name} is {phases}", reached, WITHIN)
    assert found is not None
    return found


def log(pods: Pods, pod: Pod, **options: Any) -> bytes:
    """Its log, whole."""

    async def read() -> bytes:
        pieces = pods.kube.pod_log(pods.namespace, pod.name, **options)
        return b"".join([piece async for piece in pieces])

    return pods.cluster.do(read())


@pytest.mark.parametrize(
    ("command", "code"), [("true", 0), ("exit 3", 3), ("exit 255", 255)], ids=["0", "3", "255"]
)
def test_an_exit_code_is_the_outcome(pods: Pods, command: str, code: int) -> None:
    pod = start(pods, *SHELL, command)
    ended = until_phase(pods, pod, "Succeeded", "Failed")
    event = pod_event("MODIFIED", ended, ATTEMPT, "default")
    assert event is not None
    assert (event.exit_code, event.started) == (code, Started.YES)
    assert event.state is (PodState.FAILED if code else PodState.SUCCEEDED)
    assert event.cause is (Cause.ERROR if code else None)


def test_a_log_has_both_streams_and_a_tail(pods: Pods) -> None:
    pod = start(pods, *SHELL, "echo one; echo two >&2; sleep 0.2; echo three; exit 1")
    until_phase(pods, pod, "Failed")
    assert sorted(log(pods, pod).split()) == [b"one", b"three", b"two"]
    assert log(pods, pod, tail=1) == b"three\n"
    # Of the tail, its beginning.
    assert log(pods, pod, tail=1, limit=4) == b"thre"


def test_a_log_is_followed_to_its_end(pods: Pods) -> None:
    pod = start(pods, *SHELL, "for n in 1 2 3; do echo $n; sleep 0.3; done")
    until_phase(pods, pod, "Running", "Succeeded")
    assert log(pods, pod, follow=True) == b"1\n2\n3\n"


def test_variables_working_folder_and_volume(pods: Pods) -> None:
    mount = {"name": "shared", "mountPath": "/kbroker-conformance"}
    manifest = pods.manifest(
        *SHELL,
        'cat "$FOLDER/told"; pwd; echo "$NAME"',
        schedulerName="default-scheduler",
        volumes=[{"name": "shared", "emptyDir": {}}],
        initContainers=[
            {
                "name": "before",
                "image": "busybox:1.37",
                "command": ["sh", "-c", "echo told > /kbroker-conformance/told"],
                "volumeMounts": [mount],
            }
        ],
    )
    manifest["spec"]["containers"][0].update(
        workingDir="/tmp",
        volumeMounts=[mount],
        env=[
            {"name": "FOLDER", "value": "/kbroker-conformance"},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
    )
    pods.post(manifest)
    pod = pods.get(manifest["metadata"]["name"])
    until_phase(pods, pod, "Succeeded")
    assert log(pods, pod).decode().split() == ["told", "/tmp", pod.name]


def test_an_image_that_cannot_be_pulled(pods: Pods) -> None:
    manifest = pods.manifest(schedulerName="default-scheduler")
    manifest["spec"]["containers"][0]["image"] = "kbroker.invalid/conformance:none"
    pods.post(manifest)
    name = manifest["metadata"]["name"]

    def judged() -> bool:
        event = pod_event("MODIFIED", pods.get(name), ATTEMPT, "default")
        assert event is not None
        assert event.state is PodState.PENDING
        return event.cause is Cause.IMAGE_PULL

    poll("the kubelet says so", judged, WITHIN)


def test_a_deadline_ends_a_pod(pods: Pods) -> None:
    pod = start(pods, "sleep", "300", activeDeadlineSeconds=2)
    _assert_deadline(until_phase(pods, pod, "Failed"))


def test_a_running_pod_is_stopped_by_a_deadline(pods: Pods) -> None:
    """So a launcher stops a pod whose name has to be held: it ends, and is still there."""
    pod = start(pods, "sleep", "300", terminationGracePeriodSeconds=1)
    until_phase(pods, pod, "Running")
    body = {"spec": {"activeDeadlineSeconds": 1}}
    pods.cluster.do(pods.kube.patch_pod(pods.namespace, pod.name, body))
    _assert_deadline(until_phase(pods, pod, "Failed"))


def _assert_deadline(ended: Pod) -> None:
    event = pod_event("MODIFIED", ended, ATTEMPT, "default")
    assert event is not None
    assert (event.state, event.cause) == (PodState.FAILED, Cause.DEADLINE_EXCEEDED)


def test_a_deleted_pod_may_end_in_order(pods: Pods) -> None:
    command = "trap 'exit 0' TERM; echo up; while true; do sleep 0.1; done"
    pod = start(pods, *SHELL, command, terminationGracePeriodSeconds=60)
    until_phase(pods, pod, "Running")
    poll("the trap is set", lambda: log(pods, pod) == b"up\n", WITHIN)
    watch = pods.watch(pods.version())
    pods.delete(pod)
    last = watch.until("DELETED", seconds=40)
    told: list[Object] = [e["object"] for e in watch.told if e["type"] == "MODIFIED"]
    assert told[0]["metadata"]["deletionTimestamp"]
    assert last["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
