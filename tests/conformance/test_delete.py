"""Deletes: by identity, and in two steps where containers may run."""

from __future__ import annotations

import uuid

import pytest

from tests.conformance.cluster import poll
from tests.conformance.played_node import PlayedNode
from tests.conformance.pods import Pods


@pytest.mark.parametrize("bound", [False, True], ids=["unbound", "bound"])
def test_preconditions(pods: Pods, node: PlayedNode, bound: bool) -> None:
    pod = pods.create()
    if bound:
        node.bind(pod.name)
    present = pods.get(pod.name)
    wrong = pods.kube.delete_pod(pods.namespace, pod.name, uid=str(uuid.uuid4()))
    error = pods.cluster.refused(wrong, 409, "Conflict")
    assert "UID" in str(error)
    pods.cluster.do(
        pods.kube.patch_pod(pods.namespace, pod.name, {"metadata": {"labels": {"a": "1"}}})
    )
    for version in (present.resource_version, present.resource_version - 1):
        stale = pods.kube.delete_pod(
            pods.namespace, pod.name, uid=pod.uid, resource_version=version
        )
        error = pods.cluster.refused(stale, 409, "Conflict")
        assert "ResourceVersion" in str(error)
    now = pods.get(pod.name)
    assert now.metadata.deletion_timestamp is None
    pods.delete(now, resource_version=now.resource_version)
    assert pods.exists(pod.name) == bound  # a bound one is only told to end


def test_nothing_runs_of_an_unbound_pod_so_it_goes_at_once(pods: Pods) -> None:
    pod = pods.create()
    watch = pods.watch(pods.version())
    pods.delete(pod)
    assert not pods.exists(pod.name)
    watch.until("DELETED")
    assert watch.events == [("DELETED", pod.name)]


def test_a_finished_pod_goes_at_once(pods: Pods, node: PlayedNode) -> None:
    pod = pods.create()
    node.bind(pod.name)
    node.runs(pod.name)
    node.ends(pod.name)
    pods.delete(pod)
    assert not pods.exists(pod.name)


def test_a_bound_pod_goes_in_two_steps(pods: Pods, node: PlayedNode) -> None:
    pod = pods.create(terminationGracePeriodSeconds=25)
    node.bind(pod.name)
    node.runs(pod.name)
    watch = pods.watch(pods.version())
    pods.delete(pods.get(pod.name))
    told = watch.until("MODIFIED")
    assert told["metadata"]["deletionTimestamp"]
    assert told["metadata"]["deletionGracePeriodSeconds"] == 25
    assert pods.get(pod.name).metadata.deletion_timestamp
    node.gone(pod.name)
    last = watch.until("DELETED")
    assert last["metadata"]["uid"] == pod.uid
    # Some servers tell of the shortened grace, too.
    assert {kind for kind, _ in watch.events[:-1]} == {"MODIFIED"}
    assert not pods.exists(pod.name)


def test_a_second_delete_changes_nothing_but_a_shorter_grace_does(
    pods: Pods, node: PlayedNode
) -> None:
    pod = pods.create()
    node.bind(pod.name)
    pods.delete(pod)
    first = pods.whole(pod.name)["metadata"]
    pods.delete(pod)
    assert pods.whole(pod.name)["metadata"]["deletionTimestamp"] == first["deletionTimestamp"]
    pods.delete(pod, grace=5)
    second = pods.whole(pod.name)["metadata"]
    assert second["deletionGracePeriodSeconds"] == 5
    assert second["deletionTimestamp"] < first["deletionTimestamp"]


def test_by_force_a_bound_pod_goes_at_once(pods: Pods, node: PlayedNode) -> None:
    pod = pods.create()
    node.bind(pod.name)
    node.runs(pod.name)
    pods.delete(pod, grace=0)
    assert not pods.exists(pod.name)


def test_what_is_gone_cannot_be_deleted(pods: Pods) -> None:
    pod = pods.create()
    pods.delete(pod)
    again = pods.kube.delete_pod(pods.namespace, pod.name, uid=pod.uid)
    pods.cluster.refused(again, 404, "NotFound")


def test_a_binding_is_made_once(pods: Pods, node: PlayedNode) -> None:
    pod = pods.create()
    watch = pods.watch(pods.version())
    node.bind(pod.name)
    told = watch.until("MODIFIED")
    assert told["spec"]["nodeName"] == "kbroker-conformance-node"
    scheduled = [c for c in told["status"]["conditions"] if c["type"] == "PodScheduled"]
    assert [c["status"] for c in scheduled] == ["True"]
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod.name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "another"},
    }
    answer = pods.cluster.call("POST", pods.path(f"{pod.name}/binding"), binding).expect(409)
    assert "is already assigned to node" in answer["message"]
    poll("nothing more is told", lambda: len(watch.events) == 1)
