"""What the API server says to a create: kbroker's launcher decides by these answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.cluster import Cluster, Object, path
from tests.conformance.pods import Pods

Change = Callable[[Object], Any]


def base(pod: Object) -> Object:
    """Its container."""
    found: Object = pod["spec"]["containers"][0]
    return found


INVALID: dict[str, tuple[Change, set[str]]] = {
    "name": (lambda pod: pod["metadata"].update(name="Not_valid"), {"metadata.name"}),
    "no name": (lambda pod: pod["metadata"].pop("name"), {"metadata.name"}),
    "label": (lambda pod: pod["metadata"]["labels"].update(a="not valid"), {"metadata.labels"}),
    "annotations too long": (
        lambda pod: pod["metadata"].update(annotations={"a": "x" * 262_145}),
        {"metadata.annotations"},
    ),
    "no container": (lambda pod: pod["spec"].update(containers=[]), {"spec.containers"}),
    "no image": (lambda pod: base(pod).pop("image"), {"spec.containers[0].image"}),
    "container's name": (lambda pod: base(pod).update(name="Base"), {"spec.containers[0].name"}),
    "container twice": (
        lambda pod: pod["spec"]["containers"].append(copy.deepcopy(base(pod))),
        {"spec.containers[1].name"},
    ),
    "variable without name": (
        lambda pod: base(pod).update(env=[{"name": "", "value": "x"}]),
        {"spec.containers[0].env[0].name"},
    ),
    "restart policy": (
        lambda pod: pod["spec"].update(restartPolicy="Sometimes"),
        {"spec.restartPolicy"},
    ),
    "deadline": (
        lambda pod: pod["spec"].update(activeDeadlineSeconds=0),
        {"spec.activeDeadlineSeconds"},
    ),
    "several": (
        lambda pod: (base(pod).pop("image"), pod["spec"].update(activeDeadlineSeconds=0)),
        {"spec.containers[0].image", "spec.activeDeadlineSeconds"},
    ),
}


def test_a_created_pod_has_an_identity_and_waits(pods: Pods) -> None:
    first, second = pods.create(), pods.create()
    assert first.uid != second.uid
    assert 0 < first.resource_version < second.resource_version
    assert (first.namespace, first.phase, first.node) == (pods.namespace, "Pending", None)
    assert pods.get(first.name) == first
    assert pods.whole(first.name)["spec"]["terminationGracePeriodSeconds"] == 30


def test_a_status_is_not_created(pods: Pods) -> None:
    manifest = pods.manifest()
    manifest["status"] = {"phase": "Succeeded"}
    pods.post(manifest)
    assert pods.get(manifest["metadata"]["name"]).phase == "Pending"


def test_a_name_is_taken_once(pods: Pods) -> None:
    manifest = pods.manifest()
    pods.post(manifest)
    error = pods.cluster.refused(
        pods.kube.create_pod(pods.namespace, manifest), 409, "AlreadyExists"
    )
    name = manifest["metadata"]["name"]
    assert str(error) == f'pods "{name}" already exists'
    assert (error.details["name"], error.details["kind"]) == (name, "pods")


def test_a_name_is_free_again_under_another_uid(pods: Pods) -> None:
    manifest = pods.manifest()
    pods.post(manifest)
    first = pods.get(manifest["metadata"]["name"])
    pods.delete(first)
    pods.post(manifest)
    second = pods.get(first.name)
    assert second.uid != first.uid
    assert second.resource_version > first.resource_version


@pytest.mark.parametrize(("change", "fields"), INVALID.values(), ids=INVALID)
def test_an_invalid_pod_is_refused_with_all_causes(
    pods: Pods, change: Change, fields: set[str]
) -> None:
    manifest = pods.manifest()
    change(manifest)
    error = pods.cluster.refused(pods.kube.create_pod(pods.namespace, manifest), 422, "Invalid")
    assert str(error).startswith(f'Pod "{manifest["metadata"].get("name", "")}" is invalid: ')
    assert {cause["field"] for cause in error.details["causes"]} == fields
    assert pods.names() == []


def test_what_is_no_pod_is_a_bad_request(pods: Pods) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": pods.case}}
    elsewhere = pods.manifest()
    elsewhere["metadata"]["namespace"] = "another"
    for body in (secret, elsewhere, "a pod"):
        answer = pods.cluster.call("POST", pods.path(), body).expect(400)
        assert (answer["kind"], answer["reason"]) == ("Status", "BadRequest")


def test_what_is_not_there_is_named(pods: Pods, cluster: Cluster) -> None:
    absent = f"{pods.namespace}-absent"
    error = cluster.refused(pods.kube.create_pod(absent, pods.manifest()), 404, "NotFound")
    assert str(error) == f'namespaces "{absent}" not found'
    error = cluster.refused(pods.kube.get_pod(pods.namespace, "absent"), 404, "NotFound")
    assert str(error) == 'pods "absent" not found'
    assert cluster.call("GET", path("nothings", pods.namespace)).status == 404
