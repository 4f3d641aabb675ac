"""One local cluster for all of these tests, and a namespace for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbroker.local.cluster_process import LocalCluster
from tests.integration.local_cluster.client import Client

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster whose bookmarks come often."""
    folder: Path = tmp_path_factory.mktemp("cluster")
    with LocalCluster(folder, bookmark_interval=0.2) as running:
        yield running


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """A client of a namespace of its own; the cluster behaves again afterwards."""
    namespace = f"test-{next(_numbers)}"
    client = Client(cluster, namespace)
    made = client.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    assert made.status == 201, made.body
    yield client
    cluster.admin.delete("/_local/faults")
    client.call("DELETE", f"/api/v1/namespaces/{namespace}")
