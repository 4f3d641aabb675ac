"""A quota refuses in the words by which a launcher lets a launch wait."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from kbroker.retry import Action, decide
from kbroker.settings import LauncherSettings
from tests.conformance.cluster import Cluster, poll
from tests.conformance.namespace import Namespace
from tests.conformance.pods import Pods
from tests.conformance.quota import Quota


@pytest.fixture(scope="module")
def apart(cluster: Cluster) -> Iterator[Pods]:
    """Pods of a namespace in which nobody else's are counted."""
    with Namespace(cluster) as namespace:
        yield Pods(cluster, namespace.name)


def test_an_exceeded_quota_is_a_403_with_its_numbers(apart: Pods, cluster: Cluster) -> None:
    with Quota(cluster, apart.namespace, pods=1) as quota:
        message = quota.until_exceeded(apart)
        wording = (
            rf'pods "\S+" is forbidden: exceeded quota: {quota.name}, requested: pods=1, '
            r"used: pods=[1-9]\d*, limited: pods=1"
        )
        assert re.fullmatch(wording, message), message
        error = cluster.refused(
            cluster.kube.create_pod(apart.namespace, apart.manifest()), 403, "Forbidden"
        )
        decision = decide(error.failure, 1, 0.0, 20.0, LauncherSettings(), random.Random(1))
        assert decision.action is Action.PARK
        # Other objects are not counted.
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}
        cluster.do(cluster.kube.create_secret(apart.namespace, secret))


def test_room_is_there_again_without_the_quota(apart: Pods, cluster: Cluster) -> None:
    with Quota(cluster, apart.namespace, pods=0) as quota:
        quota.until_exceeded(apart)

    def fits() -> bool:
        return cluster.call("POST", apart.path(), apart.manifest()).status == 201

    poll("a pod fits", fits)
