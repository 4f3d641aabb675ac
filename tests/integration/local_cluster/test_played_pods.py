"""Pods that are only told of: the same statuses, and no process behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kbroker.local.cluster_process import LocalCluster
from tests.integration.local_cluster.client import Client, pod, poll, state


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Client]:
    with LocalCluster(tmp_path, play=0.1) as cluster:
        yield Client(cluster)


def test_it_runs_and_succeeds_without_a_process(played: Client, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    played.create(pod("a", "touch", str(marker)))
    assert played.phase("a", "Running")["spec"]["nodeName"]
    ended = played.phase("a", "Succeeded")
    assert state(ended)["terminated"]["exitCode"] == 0
    assert not marker.exists()


@pytest.fixture
def long_played(tmp_path: Path) -> Iterator[Client]:
    with LocalCluster(tmp_path, play=3600) as cluster:
        yield Client(cluster)


def test_it_goes_when_it_is_deleted(long_played: Client) -> None:
    long_played.create(pod("a", "true"))
    long_played.phase("a", "Running")
    assert long_played.delete("a").status == 200
    poll("it is gone", lambda: long_played.get("pods", "a").status == 404)


def test_it_fails_at_its_deadline(long_played: Client) -> None:
    long_played.create(pod("a", "true", activeDeadlineSeconds=1))
    ended = long_played.phase("a", "Failed")
    assert ended["status"]["reason"] == "DeadlineExceeded"
    assert state(ended)["terminated"]["exitCode"] == 137
