"""What a finalizer holds: a deleted pod stays, name and status, until it is taken off."""

from __future__ import annotations

import uuid

import pytest

from kbroker.naming import FINALIZER
from kbroker.pod import Pod
from tests.conformance.played_node import STRATEGIC, PlayedNode
from tests.conformance.pods import Pods

OTHERS = "example.com/audit"


def held(pods: Pods, *finalizers: str) -> Pod:
    """A new pod with these, or with ours alone."""
    manifest = pods.manifest()
    manifest["metadata"]["finalizers"] = list(finalizers or (FINALIZER,))
    return Pod.decode(pods.post(manifest))


def release(pods: Pods, pod: Pod, **more: int) -> Pod:
    """Take ours off."""
    step = pods.kube.release_pod(pods.namespace, pod.name, uid=pod.uid, **more)
    return Pod.decode(pods.cluster.do(step))


def test_an_unbound_one_is_only_held_and_never_bound(pods: Pods) -> None:
    pod = held(pods)
    watch = pods.watch(pods.version())
    pods.delete(pod)
    told = watch.until("MODIFIED")
    assert told["metadata"]["deletionTimestamp"]
    assert told["metadata"]["deletionGracePeriodSeconds"] == 0
    assert pods.get(pod.name).only_held
    pods.cluster.refused(
        pods.kube.create_pod(pods.namespace, named(pods, pod)), 409, "AlreadyExists"
    )
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod.name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "any"},
    }
    answer = pods.cluster.call("POST", pods.path(f"{pod.name}/binding"), binding).expect(409)
    assert "is being deleted, cannot be assigned to a host" in answer["message"]
    free = release(pods, pod)
    assert free.only_held
    assert not free.metadata.finalizers
    assert watch.until("DELETED")["metadata"]["uid"] == pod.uid
    assert not pods.exists(pod.name)


def named(pods: Pods, pod: Pod) -> dict[str, object]:
    """Another pod of the same name."""
    manifest = pods.manifest()
    manifest["metadata"]["name"] = pod.name
    return manifest


def test_one_that_runs_has_its_time_first(pods: Pods, node: PlayedNode) -> None:
    pod = held(pods)
    node.bind(pod.name)
    node.runs(pod.name)
    pods.delete(pod)
    present = pods.get(pod.name)
    assert present.metadata.deletion_timestamp
    assert not present.only_held
    node.ends(pod.name, 143)
    node.gone(pod.name)
    present = pods.get(pod.name)
    assert (present.only_held, present.phase) == (True, "Failed")
    release(pods, pod)
    assert not pods.exists(pod.name)


def test_one_that_has_ended_is_only_held_at_once(pods: Pods, node: PlayedNode) -> None:
    pod = held(pods)
    node.bind(pod.name)
    node.ends(pod.name)
    pods.delete(pod)
    assert pods.get(pod.name).only_held


def test_by_force_one_that_runs_is_only_held_at_once(pods: Pods, node: PlayedNode) -> None:
    pod = held(pods)
    node.bind(pod.name)
    node.runs(pod.name)
    pods.delete(pod, grace=0)
    present = pods.get(pod.name)
    assert (present.only_held, present.phase) == (True, "Running")


def test_released_before_its_end_it_goes_with_it(pods: Pods, node: PlayedNode) -> None:
    pod = held(pods)
    node.bind(pod.name)
    node.runs(pod.name)
    pods.delete(pod)
    release(pods, pod)
    assert pods.exists(pod.name)
    node.gone(pod.name)
    assert not pods.exists(pod.name)


@pytest.mark.parametrize("deleted", [False, True])
def test_others_stay(pods: Pods, deleted: bool) -> None:
    pod = held(pods, OTHERS, FINALIZER)
    if deleted:
        pods.delete(pod)
    assert release(pods, pod).metadata.finalizers == [OTHERS]
    assert pods.exists(pod.name)
    again = release(pods, pod)
    assert again.metadata.finalizers == [OTHERS]
    assert again.resource_version == pods.get(pod.name).resource_version


def test_a_release_is_of_exactly_this_pod(pods: Pods) -> None:
    pod = held(pods)
    wrong = pods.kube.release_pod(pods.namespace, pod.name, uid=str(uuid.uuid4()))
    assert "metadata.uid" in str(pods.cluster.refused(wrong, 422, "Invalid"))
    stale = pods.kube.release_pod(
        pods.namespace, pod.name, uid=pod.uid, resource_version=pod.resource_version - 1
    )
    pods.cluster.refused(stale, 409, "Conflict")
    assert pods.get(pod.name).metadata.finalizers == [FINALIZER]
    release(pods, pod, resource_version=pod.resource_version)
    gone = pods.kube.release_pod(pods.namespace, f"{pod.name}-not", uid=pod.uid)
    pods.cluster.refused(gone, 404, "NotFound")


def test_what_is_being_deleted_gets_no_new_one(pods: Pods) -> None:
    pod = held(pods)
    pods.delete(pod)
    patch = {"metadata": {"finalizers": [OTHERS]}}
    answer = pods.cluster.call("PATCH", pods.path(pod.name), patch, STRATEGIC).expect(422)
    assert "no new finalizers can be added" in answer["message"]
