"""Patches: what they change, their preconditions, and what may not change."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.conformance.cluster import Answer
from tests.conformance.played_node import PlayedNode
from tests.conformance.pods import Pods

JSON, MERGE, STRATEGIC = (
    f"application/{kind}"
    for kind in ("json-patch+json", "merge-patch+json", "strategic-merge-patch+json")
)
DEADLINE = "spec.activeDeadlineSeconds"


def patch(pods: Pods, name: str, body: Any, kind: str = MERGE) -> Answer:
    """PATCH a pod."""
    return pods.cluster.call("PATCH", pods.path(name), body, kind)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (
            JSON,
            [
                {"op": "test", "path": "/metadata/labels/old", "value": "1"},
                {"op": "remove", "path": "/metadata/labels/old"},
                {"op": "add", "path": "/metadata/labels/new", "value": "2"},
            ],
        ),
        (MERGE, {"metadata": {"labels": {"old": None, "new": "2"}}}),
        (STRATEGIC, {"metadata": {"labels": {"old": None, "new": "2"}}}),
    ],
    ids=["json", "merge", "strategic"],
)
def test_each_kind_of_patch(pods: Pods, kind: str, body: Any) -> None:
    before = pods.create(labels={"old": "1"})
    labels = patch(pods, before.name, body, kind).expect(200)["metadata"]["labels"]
    assert labels.get("new") == "2"
    assert "old" not in labels
    after = pods.get(before.name)
    assert after.uid == before.uid
    assert after.resource_version > before.resource_version


def test_a_patch_without_effect_makes_no_version(pods: Pods) -> None:
    before = pods.create(labels={"a": "1"})
    patch(pods, before.name, {"metadata": {"labels": {"a": "1"}}}).expect(200)
    assert pods.get(before.name).resource_version == before.resource_version


def test_containers_are_merged_by_name_or_replaced(pods: Pods) -> None:
    pod = pods.create("true")
    body = {"spec": {"containers": [{"name": "base", "image": "busybox:1.36"}]}}
    container = patch(pods, pod.name, body, STRATEGIC).expect(200)["spec"]["containers"][0]
    assert (container["image"], container["command"]) == ("busybox:1.36", ["true"])
    # The list as a whole: the command would go, and may not.
    assert patch(pods, pod.name, body, MERGE).status == 422


def test_a_json_patch_whose_test_fails_changes_nothing(pods: Pods) -> None:
    pod = pods.create(labels={"a": "1"})
    body = [
        {"op": "replace", "path": "/metadata/labels/a", "value": "2"},
        {"op": "test", "path": "/metadata/uid", "value": str(uuid.uuid4())},
    ]
    assert patch(pods, pod.name, body, JSON).expect(422)["reason"] == "Invalid"
    assert pods.get(pod.name) == pod


def test_a_version_in_a_patch_is_a_precondition(pods: Pods) -> None:
    old = pods.create()
    new = patch(pods, old.name, {"metadata": {"labels": {"a": "1"}}}).expect(200)["metadata"]
    stale = {"metadata": {"resourceVersion": str(old.resource_version), "labels": {"a": "2"}}}
    error = pods.cluster.refused(
        pods.kube.patch_pod(pods.namespace, old.name, stale), 409, "Conflict"
    )
    assert "the object has been modified" in str(error)
    both = {"uid": old.uid, "resourceVersion": new["resourceVersion"], "labels": {"a": "3"}}
    pods.cluster.do(pods.kube.patch_pod(pods.namespace, old.name, {"metadata": both}))
    assert pods.whole(old.name)["metadata"]["labels"]["a"] == "3"


def test_a_uid_in_a_patch_is_a_precondition(pods: Pods) -> None:
    pod = pods.create()
    other = {"uid": str(uuid.uuid4()), "labels": {"a": "1"}}
    # A uid that differs is an invalid change; a stale version beside it is found first.
    error = pods.cluster.refused(
        pods.kube.patch_pod(pods.namespace, pod.name, {"metadata": other}), 422, "Invalid"
    )
    assert [cause["field"] for cause in error.details["causes"]] == ["metadata.uid"]
    assert "field is immutable" in str(error)
    other["resourceVersion"] = str(pod.resource_version - 1)
    pods.cluster.refused(
        pods.kube.patch_pod(pods.namespace, pod.name, {"metadata": other}), 409, "Conflict"
    )
    assert pods.get(pod.name) == pod


@pytest.mark.parametrize(
    "spec",
    [
        {"hostname": "another"},
        {"restartPolicy": "Always"},
        {"terminationGracePeriodSeconds": 5},
        {"containers": [{"name": "base", "command": ["false"]}]},
        {"containers": [{"name": "base", "env": [{"name": "A", "value": "1"}]}]},
        {"containers": [{"name": "second", "image": "busybox:1.37"}]},
    ],
    ids="-".join,
)
def test_a_specification_may_not_change(pods: Pods, spec: Any) -> None:
    pod = pods.create()
    answer = patch(pods, pod.name, {"spec": spec}, STRATEGIC).expect(422)
    assert answer["reason"] == "Invalid"
    assert answer["details"]["causes"][0]["field"].startswith("spec")
    assert pods.get(pod.name) == pod


def test_a_deadline_may_be_set_and_come_down(pods: Pods) -> None:
    pod = pods.create()
    for seconds in (600, 1):
        body = {"spec": {"activeDeadlineSeconds": seconds}}
        pods.cluster.do(pods.kube.patch_pod(pods.namespace, pod.name, body))
        assert pods.whole(pod.name)["spec"]["activeDeadlineSeconds"] == seconds
    for wrong in (2, None):
        answer = patch(pods, pod.name, {"spec": {"activeDeadlineSeconds": wrong}}).expect(422)
        assert DEADLINE in [cause["field"] for cause in answer["details"]["causes"]]
    assert pods.whole(pod.name)["spec"]["activeDeadlineSeconds"] == 1


def test_a_status_changes_by_its_own_path_alone(pods: Pods, node: PlayedNode) -> None:
    pod = pods.create()
    patch(pods, pod.name, {"status": {"phase": "Running"}}).expect(200)
    assert pods.get(pod.name).phase == "Pending"
    node.bind(pod.name)
    node.say(pod.name, phase="Running", conditions=[{"type": "Ready", "status": "True"}])
    node.say(pod.name, conditions=[{"type": "Initialized", "status": "True"}])
    found = pods.whole(pod.name)
    assert found["status"]["phase"] == "Running"
    types = {condition["type"] for condition in found["status"]["conditions"]}
    assert {"Ready", "Initialized"} <= types  # merged by type
    where = pods.path(f"{pod.name}/status")
    body = {"spec": {"activeDeadlineSeconds": 5}, "status": {"message": "kept"}}
    after = pods.cluster.call("PATCH", where, body, MERGE).expect(200)
    assert "activeDeadlineSeconds" not in after["spec"]
    assert after["status"]["message"] == "kept"


def test_what_cannot_be_patched(pods: Pods) -> None:
    pod = pods.create()
    assert patch(pods, pod.name, {}, "application/json").status == 415
    assert patch(pods, "absent", {}).expect(404)["reason"] == "NotFound"
