"""Sidecars, restarts, memory limits, events; and the pods that are not this node's business."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kbroker.local.cluster_process import LocalCluster
from tests.integration.local_cluster.client import (
    Client,
    Object,
    condition,
    pod,
    poll,
    state,
    waiting,
)

ENDED = ("Succeeded", "Failed")


def shell(name: str, script: str, **spec: Any) -> Object:
    """A pod that runs a shell script."""
    return pod(name, "sh", "-c", script, **spec)


def step(name: str, script: str, **more: Any) -> Object:
    """A container that runs a shell script."""
    return {"name": name, "image": "x", "command": ["sh", "-c", script], **more}


def status(found: Object, container: str) -> Object:
    """The status of one of a pod's containers."""
    given = found["status"]
    every = [*given["containerStatuses"], *given.get("initContainerStatuses", [])]
    return next(c for c in every if c["name"] == container)


def events(client: Client, name: str) -> list[Object]:
    """The events about a pod, as they came."""
    items = client.get("events").json["items"]
    return [event for event in items if event["involvedObject"]["name"] == name]


class TestSidecars:
    def test_run_beside_the_others_and_end_last(self, client: Client, tmp_path: Path) -> None:
        said = f"{tmp_path}/said"
        trap = f"trap 'echo %s ends >> {said}; exit 3' TERM; echo %s >> {said}; %s"
        forever = "while :; do sleep 0.02; done"
        content = shell("a", f"sleep 0.1; echo base >> {said}")
        content["spec"]["initContainers"] = [
            step("one", trap % ("one", "one", forever), restartPolicy="Always"),
            step("between", f"until test -e {said}; do sleep 0.02; done; echo between >> {said}"),
            step("two", trap % ("two", "two", forever), restartPolicy="Always"),
        ]
        client.create(content)
        found = client.phase("a", *ENDED)
        assert found["status"]["phase"] == "Succeeded"
        lines = Path(said).read_text().splitlines()
        assert lines[:2] == ["one", "between"]
        assert set(lines[2:4]) == {"two", "base"}
        assert lines[4:] == ["two ends", "one ends"]
        assert state(found, "one")["terminated"]["exitCode"] == 3

    def test_start_again(self, client: Client, tmp_path: Path) -> None:
        content = shell("a", f"until test -e {tmp_path}/2; do sleep 0.02; done")
        script = (
            f"if test -e {tmp_path}/1; then touch {tmp_path}/2; sleep 60; fi; touch {tmp_path}/1"
        )
        content["spec"]["initContainers"] = [step("side", script, restartPolicy="Always")]
        client.create(content)
        found = client.phase("a", *ENDED)
        assert found["status"]["phase"] == "Succeeded"
        assert status(found, "side")["restartCount"] == 1
        assert condition(found, "Initialized")["status"] == "True"


def test_init_container_that_runs(client: Client) -> None:
    """What is said of the others meanwhile."""
    content = pod("a", initContainers=[step("first", "exit 0"), step("second", "sleep 60")])
    client.create(content)
    found = client.until("a", lambda p: "running" in state(p, "second"))
    first, second, base = (status(found, name) for name in ("first", "second", "base"))
    assert (first["ready"], first["state"]["terminated"]["reason"]) == (True, "Completed")
    assert (second["ready"], second["started"]) == (False, True)
    assert (base["ready"], base["started"], base["imageID"]) == (False, False, "")
    assert base["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert found["status"]["phase"] == "Pending"
    incomplete = condition(found, "Initialized")
    assert incomplete["reason"] == "ContainersNotInitialized"
    assert incomplete["message"] == "containers with incomplete status: [second]"
    unready = condition(found, "Ready")
    assert unready["reason"] == "ContainersNotReady"
    assert unready["message"] == "containers with unready status: [base]"
    assert [c["type"] for c in found["status"]["conditions"]] == [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ]


@pytest.mark.parametrize(
    ("script", "limit", "word"),
    [
        ("x = b'x' * (96 << 20)\nimport time\ntime.sleep(60)", "64Mi", "OOMKilled"),
        # Reserved, not used.
        (
            "import mmap\nm = mmap.mmap(-1, 1 << 30)\nimport time\ntime.sleep(0.5)",
            "64Mi",
            "Completed",
        ),
        # In a child, out of the first one's session.
        (
            "import subprocess, sys\nsubprocess.run([sys.executable, '-c', "
            "'x = b\"x\" * (96 << 20); import time; time.sleep(60)'], start_new_session=True)",
            "64M",
            "OOMKilled",
        ),
    ],
    ids=["hog", "reserved", "child"],
)
def test_memory_limit(client: Client, script: str, limit: str, word: str) -> None:
    resources = {"resources": {"limits": {"memory": limit}}}
    client.create(pod("a", sys.executable, "-c", script, container=resources))
    found = client.phase("a", *ENDED)
    ended = state(found)["terminated"]
    assert ended["reason"] == word
    assert ended["exitCode"] == (137 if word == "OOMKilled" else 0)


def test_restarts(client: Client) -> None:
    """The first at once, the next after a pause that doubles; a log for each run."""
    content = shell("a", "echo run; exit 1", restartPolicy="Always")
    client.create(content)
    found = client.until(
        "a", lambda p: state(p).get("waiting", {}).get("message", "").startswith("back-off 1s")
    )
    container = status(found, "base")
    assert container["restartCount"] == 1
    assert state(found)["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["exitCode"] == 1
    assert client.log("a").body == client.log("a", previous="true").body == b"run\n"
    client.until(
        "a", lambda p: state(p).get("waiting", {}).get("message", "").startswith("back-off 2s")
    )
    backing_off = [e for e in events(client, "a") if e["reason"] == "BackOff"]
    assert [event["count"] for event in backing_off] == [2]
    started = [e["count"] for e in events(client, "a") if e["reason"] == "Started"]
    assert started == [3]


def test_message_from_the_log(client: Client) -> None:
    client.create(
        shell(
            "a",
            "echo why it failed; exit 2",
            container={"terminationMessagePolicy": "FallbackToLogsOnError"},
        )
    )
    assert state(client.phase("a", *ENDED))["terminated"]["message"] == "why it failed\n"


def test_events(client: Client) -> None:
    client.create(pod("good"))
    client.create(pod("bad", image="registry.invalid/x:1"))
    client.create(pod("nowhere", nodeSelector={"disk": "fast"}))
    client.phase("good", "Succeeded")
    client.until("bad", lambda p: state(p).get("waiting", {}).get("reason") == "ImagePullBackOff")
    scheduler, kubelet = "default-scheduler", "kubelet"
    expected = {
        "good": [
            ("Normal", "Scheduled", scheduler, None),
            ("Normal", "Pulled", kubelet, "spec.containers{base}"),
            ("Normal", "Created", kubelet, "spec.containers{base}"),
            ("Normal", "Started", kubelet, "spec.containers{base}"),
        ],
        "bad": [
            ("Normal", "Scheduled", scheduler, None),
            ("Normal", "Pulling", kubelet, "spec.containers{base}"),
            ("Warning", "Failed", kubelet, "spec.containers{base}"),
            ("Warning", "Failed", kubelet, "spec.containers{base}"),
            ("Normal", "BackOff", kubelet, "spec.containers{base}"),
            ("Warning", "Failed", kubelet, "spec.containers{base}"),
        ],
        "nowhere": [("Warning", "FailedScheduling", scheduler, None)],
    }
    for name, wanted in expected.items():
        found = events(client, name)
        assert [
            (
                event["type"],
                event["reason"],
                event["source"]["component"],
                event["involvedObject"].get("fieldPath"),
            )
            for event in found
        ] == wanted
        for event in found:
            assert event["firstTimestamp"] <= event["lastTimestamp"]
            assert event["reportingComponent"] == event["source"]["component"]
            assert event["count"] == 1


class TestNotOurs:
    """Pods of another scheduler, and of another node."""

    def test_are_left_alone(self, client: Client) -> None:
        client.create(waiting("unbound", activeDeadlineSeconds=1))
        client.create(waiting("bound", activeDeadlineSeconds=1))
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": "bound"},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "elsewhere"},
        }
        made = client.call("POST", client.path("pods", "bound/binding"), binding)
        assert made.status == 201, made.body
        before = {name: client.pod(name)["metadata"]["resourceVersion"] for name in client.items()}
        client.create(pod("ours"))
        client.phase("ours", "Succeeded")
        time.sleep(1.1)  # past the deadline, which only a kubelet watches
        for name, version in before.items():
            assert client.pod(name)["metadata"]["resourceVersion"] == version
        assert client.delete("bound").status == 200
        told = client.pod("bound")
        assert told["metadata"]["deletionGracePeriodSeconds"] == 30
        assert told["status"]["phase"] == "Pending"
        assert client.delete("bound", {"gracePeriodSeconds": 0}).status == 200
        assert client.get("pods", "bound").status == 404
        assert events(client, "bound") == events(client, "unbound") == []

    def test_bound_to_this_node_by_hand(self, client: Client) -> None:
        client.create(waiting("a"))
        target = {"apiVersion": "v1", "kind": "Node", "name": "local"}
        binding = {"metadata": {"name": "a"}, "target": target}
        made = client.call("POST", client.path("pods", "a/binding"), binding)
        assert made.status == 201, made.body
        assert client.phase("a", *ENDED)["status"]["phase"] == "Succeeded"


def test_logs_of_deleted_pods_are_kept_only_for_the_newest(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, keep_logs=2) as cluster:
        client = Client(cluster)
        for number in range(4):
            name = f"p{number}"
            client.create(shell(name, f"echo {name}"))
            client.phase(name, "Succeeded")
            client.delete(name)
        kept = cluster.logs / "default"
        poll(
            "the old ones are gone", lambda: sorted(p.name for p in kept.iterdir()) == ["p2", "p3"]
        )
        assert [path.read_text() for path in sorted(kept.rglob("base.log"))] == ["p2\n", "p3\n"]
