"""The shipped admission policy: the API server itself refuses what comes too late."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.conformance.cluster import Cluster, Object
from tests.conformance.pods import Pods
from tests.conformance.policy import MANAGED_BY, Policy, create_before


@pytest.fixture
def policy(cluster: Cluster, pods: Pods) -> Iterator[Policy]:
    """In force for pods that are managed by this case; one for kbroker's own may be, too."""
    with Policy(cluster, {MANAGED_BY: pods.case}) as policy:
        policy.until_in_force(pods.path(), permitted(pods, -60))
        yield policy


def permitted(pods: Pods, seconds: float) -> Object:
    """A pod of this case, permitted for some seconds from now on."""
    return create_before(pods.manifest(), time.time() + seconds, pods.case)


def test_a_late_create_is_refused_and_a_timely_one_passes(pods: Pods, policy: Policy) -> None:
    late = permitted(pods, -10)
    error = pods.cluster.refused(pods.kube.create_pod(pods.namespace, late), 422, "Invalid")
    assert str(error) == f'pods "{late["metadata"]["name"]}" is forbidden: {policy.refusal}'
    garbage = permitted(pods, 60)
    garbage["metadata"]["annotations"]["kbroker/create-before"] = "soon"
    pods.cluster.refused(pods.kube.create_pod(pods.namespace, garbage), 422, "Invalid")
    timely, unlimited = permitted(pods, 60), permitted(pods, -10)
    del unlimited["metadata"]["annotations"]
    foreign = create_before(pods.manifest(), time.time() - 10, "somebody")
    accepted = [timely, unlimited, foreign]
    for manifest in accepted:
        pods.post(manifest)
    assert set(pods.names()) == {manifest["metadata"]["name"] for manifest in accepted}


def test_it_judges_a_name_that_is_taken_as_well(pods: Pods, policy: Policy) -> None:
    manifest = permitted(pods, 60)
    pods.post(manifest)
    pods.cluster.refused(pods.kube.create_pod(pods.namespace, manifest), 409, "AlreadyExists")
    late = create_before(manifest, time.time() - 10, pods.case)
    pods.cluster.refused(pods.kube.create_pod(pods.namespace, late), 422, "Invalid")


def test_what_exists_may_still_change(pods: Pods, policy: Policy) -> None:
    manifest = permitted(pods, 60)
    pods.post(manifest)
    name = manifest["metadata"]["name"]
    past = {"annotations": permitted(pods, -10)["metadata"]["annotations"]}
    pods.cluster.do(pods.kube.patch_pod(pods.namespace, name, {"metadata": past}))
    pods.delete(pods.get(name))
    assert not pods.exists(name)
