"""What happens to pods that did nothing wrong, and how a real cluster shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kbroker.errors import ClusterError
from tests.integration.local_cluster.client import (
    Client,
    Object,
    Watch,
    condition,
    pod,
    poll,
    state,
    waiting,
)
from tests.integration.local_cluster.test_pods import alive, shell

# It tells its process id, and needs a moment for its end.
TRAPS = "trap 'sleep 0.2; exit 3' TERM; echo $$$$ > {}; while :; do sleep 0.05; done"
LOW = "The node was low on resource: memory. "


def disrupt(client: Client, name: str, way: str) -> None:
    client.cluster.admin.post(f"/_local/pods/{client.namespace}/{name}/disrupt", {"as": way})


def running(client: Client, folder: Path) -> int:
    """A pod `a` whose container runs; its process id."""
    client.create(shell("a", TRAPS.format(folder / "pid")))
    path = folder / "pid"
    return int(poll("it runs", lambda: path.exists() and path.read_text().strip()))


def watched_end(watch: Watch) -> list[Object]:
    """Everything that the pod was until it was gone, and that last."""
    seen = []
    for event in watch:
        seen.append(event["object"])
        if event["type"] == "DELETED":
            return seen
    raise AssertionError("the watch ended before the pod")


def test_evicted_by_the_kubelet(client: Client, tmp_path: Path) -> None:
    """Killed at once; phase, reason and condition come together once the container has ended."""
    pid = running(client, tmp_path)
    disrupt(client, "a", "evicted")
    found = client.phase("a", "Failed")
    status = found["status"]
    assert (status["reason"], status["message"][: len(LOW)]) == ("Evicted", LOW)
    disrupted = condition(found, "DisruptionTarget")
    assert (disrupted["status"], disrupted["reason"]) == ("True", "TerminationByKubelet")
    assert disrupted["message"] == status["message"]
    assert state(found)["terminated"]["exitCode"] == 137
    assert "deletionTimestamp" not in found["metadata"]  # the object stays
    assert not alive(pid)
    events = client.get("events").json["items"]
    assert [e["message"] for e in events if e["reason"] == "Evicted"] == [status["message"]]


def test_evicted_before_its_container_was_made(client: Client) -> None:
    client.create(pod("a", image="registry.invalid/x"))
    client.until("a", lambda p: state(p).get("waiting"))
    disrupt(client, "a", "evicted")
    found = client.phase("a", "Failed")
    assert found["status"]["reason"] == "Evicted"
    assert state(found)["terminated"]["reason"] == "ContainerStatusUnknown"
    assert not found["status"]["containerStatuses"][0].get("containerID")


@pytest.mark.parametrize(
    ("way", "reason", "message"),
    [
        (
            "preempted",
            "PreemptionByScheduler",
            "default-scheduler: preempting to accommodate a higher priority pod",
        ),
        ("api_evicted", "EvictionByEvictionAPI", "Eviction API: evicting"),
        (
            "tainted",
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
        ),
    ],
)
def test_deleted_with_grace(
    client: Client, tmp_path: Path, way: str, reason: str, message: str
) -> None:
    """First the condition, then the deletion; the object goes when its container has ended."""
    pid = running(client, tmp_path)
    version = client.get("pods").json["metadata"]["resourceVersion"]
    with client.watch(resourceVersion=version) as watch:
        disrupt(client, "a", way)
        marked, deleted, *_, last = watched_end(watch)
    for found in (marked, deleted, last):
        target = condition(found, "DisruptionTarget")
        assert (target["status"], target["reason"]) == ("True", reason)
        assert target["message"] == message
    assert "deletionTimestamp" not in marked["metadata"]
    assert deleted["metadata"]["deletionGracePeriodSeconds"] == 30
    assert deleted["status"]["phase"] == "Running"
    assert (last["status"]["phase"], state(last)["terminated"]["exitCode"]) == ("Failed", 3)
    assert not alive(pid)


@pytest.mark.parametrize(
    ("way", "source", "reason"),
    [
        ("preempted", "default-scheduler", "Preempted"),
        ("tainted", "taint-eviction-controller", "TaintManagerEviction"),
    ],
)
def test_who_did_it_says_so(client: Client, way: str, source: str, reason: str) -> None:
    client.create(pod("a", "sleep", "60"))
    client.phase("a", "Running")
    disrupt(client, "a", way)
    found = [e for e in client.get("events").json["items"] if e["reason"] == reason]
    assert [(e["source"]["component"], e["type"]) for e in found] == [(source, "Normal")]


def test_node_lost(client: Client, tmp_path: Path) -> None:
    """Nobody reports the container's end: the last word on it is that it runs."""
    pid = running(client, tmp_path)
    version = client.get("pods").json["metadata"]["resourceVersion"]
    with client.watch(resourceVersion=version) as watch:
        disrupt(client, "a", "node_lost")
        marked, last = watched_end(watch)
    for found in (marked, last):
        target = condition(found, "DisruptionTarget")
        assert (target["reason"], target["message"]) == (
            "DeletionByPodGC",
            "PodGC: node no longer exists",
        )
        assert found["status"]["phase"] == "Failed"
        assert "running" in state(found)
        assert "deletionTimestamp" not in found["metadata"]
    poll("its process is gone", lambda: not alive(pid))


@pytest.mark.parametrize(
    ("content", "way", "problem"),
    [
        (waiting("a"), "evicted", "pod a is not bound to a node, so it cannot be evicted"),
        (waiting("a"), "preempted", "pod a is not bound to a node, so it cannot be preempted"),
        (waiting("a"), "node_lost", "pod a is not bound to a node, so it cannot be node_lost"),
        (waiting("a"), "tainted", "pod a is not bound to a node, so it cannot be tainted"),
        (pod("a"), "evicted", "pod a has ended, so it cannot be evicted"),
        (pod("a"), "preempted", "pod a has ended, so it cannot be preempted"),
        (waiting("a"), "gone", "no such disruption: 'gone'; there are: evicted, preempted, "),
        (waiting("a"), ["x"], "no such disruption: \\['x'\\]"),
    ],
)
def test_what_cannot_happen(client: Client, content: Object, way: str, problem: str) -> None:
    client.create(content)
    if "schedulerName" not in content["spec"]:
        client.phase("a", "Succeeded")
    before = client.pod("a")
    with pytest.raises(ClusterError, match=f"400: {problem}"):
        disrupt(client, "a", way)
    assert client.pod("a") == before


def test_what_cannot_happen_elsewhere(client: Client) -> None:
    client.unscheduled("a")
    binding = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "far"}}
    assert client.call("POST", client.path("pods", "a/binding"), binding).status == 201
    with pytest.raises(ClusterError, match="400: pod a is on no node of this cluster"):
        disrupt(client, "a", "evicted")
    with pytest.raises(ClusterError, match=re.escape('404: pods "b" not found')):
        disrupt(client, "b", "evicted")
    disrupt(client, "a", "node_lost")
    assert client.get("pods", "a").status == 404


def test_an_ended_pod_keeps_its_phase_when_its_node_is_lost(client: Client) -> None:
    client.create(pod("a"))
    client.phase("a", "Succeeded")
    version = client.get("pods").json["metadata"]["resourceVersion"]
    with client.watch(resourceVersion=version) as watch:
        disrupt(client, "a", "node_lost")
        last = watched_end(watch)[-1]
    assert last["status"]["phase"] == "Succeeded"
    assert not condition(last, "DisruptionTarget")


class TestEvictionApi:
    def evict(self, client: Client, name: str, **content: object) -> tuple[int, Object]:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}, **content}
        answer = client.call("POST", client.path("pods", f"{name}/eviction"), body)
        return answer.status, answer.json

    def test_evicts(self, client: Client) -> None:
        """An unbound pod goes at once, and its last state says why."""
        client.unscheduled("a")
        version = client.get("pods").json["metadata"]["resourceVersion"]
        with client.watch(resourceVersion=version) as watch:
            assert self.evict(client, "a") == (
                201,
                {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"},
            )
            last = watched_end(watch)[-1]
        assert condition(last, "DisruptionTarget")["reason"] == "EvictionByEvictionAPI"
        assert last["status"]["phase"] == "Pending"
        assert self.evict(client, "a")[0] == 404

    def test_options(self, client: Client) -> None:
        client.create(shell("a", "trap '' TERM; while :; do sleep 0.05; done"))
        uid = client.phase("a", "Running")["metadata"]["uid"]
        other = {"deleteOptions": {"preconditions": {"uid": "another"}}}
        assert self.evict(client, "a", **other)[0] == 409
        assert not condition(client.pod("a"), "DisruptionTarget")
        version = client.pod("a")["metadata"]["resourceVersion"]
        assert self.evict(client, "a", deleteOptions={"dryRun": ["All"]})[0] == 201
        assert client.pod("a")["metadata"]["resourceVersion"] == version
        now = {"deleteOptions": {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}}
        assert self.evict(client, "a", **now)[0] == 201
        assert client.get("pods", "a").status == 404

    def test_of_another_name(self, client: Client) -> None:
        client.unscheduled("b")
        for given in ({"name": "a"}, {}, None):
            status, answer = self.evict(client, "b", metadata=given)
            assert (status, answer["message"]) == (
                400,
                "name in URL does not match name in Eviction object",
            )
        wrong = self.evict(client, "b", metadata={"name": "b"}, deleteOptions=[1])
        assert wrong[0] == 400
        assert client.get("pods", "b").status == 200


def test_a_throttled_image_is_pulled_in_the_end(client: Client) -> None:
    version = client.get("pods").json["metadata"]["resourceVersion"]
    seen = []
    with client.watch(resourceVersion=version) as watch:
        client.create(pod("a", image="throttled.invalid/busybox:1"))
        for event in watch:
            why = state(event["object"]).get("waiting", {})
            seen += [(why["reason"], why["message"])] if "message" in why else []
            if event["object"]["status"]["phase"] == "Succeeded":
                break
    refused = ("ErrImagePull", "pull QPS exceeded")
    backing_off = (
        "ImagePullBackOff",
        'Back-off pulling image "throttled.invalid/busybox:1": ErrImagePull: pull QPS exceeded',
    )
    assert seen == [refused, backing_off] * 3
