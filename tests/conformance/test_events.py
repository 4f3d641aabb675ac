"""The Events about one pod, found by its name and uid, and what Kubernetes writes of itself."""

from __future__ import annotations

import pytest

from kbroker.kube_events import kube_events
from kbroker.pod import Pod
from tests.conformance.cluster import path, poll
from tests.conformance.pods import Pods


def write(pods: Pods, name: str, uid: str, reason: str) -> None:
    """Write an event about a pod."""
    about = {"kind": "Pod", "apiVersion": "v1", "namespace": pods.namespace}
    event = {
        "metadata": {"generateName": f"{name}."},
        "involvedObject": {**about, "name": name, "uid": uid},
        "type": "Warning",
        "reason": reason,
        "message": "words",
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    pods.cluster.call("POST", path("events", pods.namespace), event).expect(201)


def reasons(pods: Pods, name: str, uid: str = "") -> list[str]:
    """What was reported about a pod."""
    found = kube_events(pods.cluster.do(pods.kube.pod_events(pods.namespace, name, uid)))
    return [event.reason for event in found]


def test_of_this_pod_and_no_other(pods: Pods) -> None:
    mine, other = f"{pods.case}-mine", f"{pods.case}-other"
    write(pods, mine, "u-1", "First")
    write(pods, other, "u-2", "Another")
    write(pods, mine, "u-3", "Successor")
    assert reasons(pods, mine, "u-1") == ["First"]
    assert sorted(reasons(pods, mine)) == ["First", "Successor"]
    assert reasons(pods, f"{pods.case}-none") == []
    found = kube_events(pods.cluster.do(pods.kube.pod_events(pods.namespace, mine, "u-1")))
    assert [tuple(event) for event in found] == [
        ("2026-01-01T00:00:00Z", "Warning", "First", "words")
    ]


@pytest.mark.kubelet
def test_what_keeps_a_pod_from_being_scheduled_is_reported(pods: Pods) -> None:
    nowhere = {"kbroker-conformance/none": "such"}
    pod = Pod.decode(
        pods.post(pods.manifest(schedulerName="default-scheduler", nodeSelector=nowhere))
    )
    poll("it is reported", lambda: "FailedScheduling" in reasons(pods, pod.name, pod.uid))


@pytest.mark.kubelet
def test_they_outlive_their_pod(pods: Pods) -> None:
    pod = pods.create("true", schedulerName="default-scheduler")
    poll("it is scheduled", lambda: "Scheduled" in reasons(pods, pod.name, pod.uid))
    pods.delete(pod, grace=0)
    poll("it is gone", lambda: not pods.exists(pod.name))
    assert "Scheduled" in reasons(pods, pod.name, pod.uid)
