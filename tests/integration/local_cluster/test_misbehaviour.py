"""Faults on demand, seen by a client."""

from __future__ import annotations

import http.client
import time
from pathlib import Path
from typing import Any

import pytest

from kbroker.errors import ClusterError
from kbroker.local.cluster_process import LocalCluster
from tests.integration.local_cluster.client import Client, pod, poll, waiting


def misbehave(client: Client, action: dict[str, Any], **rule: Any) -> None:
    """Add a rule for the creates of this test's namespace."""
    match = {"verb": "create", "namespace": client.namespace, **rule.pop("match", {})}
    client.cluster.admin.post("/_local/faults", {"match": match, "action": action, **rule})


def test_reset_before_the_commit(client: Client) -> None:
    misbehave(client, {"reset": "before"}, times=1)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        client.create(waiting("a"))
    assert client.items() == []
    client.create(waiting("a"))


def test_reset_after_the_commit_is_committed_once(client: Client) -> None:
    misbehave(client, {"reset": "after"}, times=1)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        client.create(waiting("a"))
    assert client.items() == ["a"]
    assert client.refused(waiting("a")).json["reason"] == "AlreadyExists"


def test_status_with_retry_after(client: Client) -> None:
    action = {"status": 429, "retry_after": 3, "message": "slow down", "reason": "TooManyRequests"}
    misbehave(client, action, times=2, skip=1)
    client.create(waiting("a"))
    for _ in range(2):
        answer = client.refused(waiting("b"))
        assert (answer.status, answer.message) == (429, "slow down")
        assert answer.headers["Retry-After"] == "3"
        assert answer.json["details"]["retryAfterSeconds"] == 3
    client.create(waiting("b"))


def test_only_what_matches(client: Client) -> None:
    misbehave(client, {"status": 503}, match={"name_prefix": "bad-", "resource": "pods"})
    client.create(waiting("good"))
    client.create({"metadata": {"name": "bad-c"}}, "configmaps")
    assert client.refused(waiting("bad-1")).status == 503
    assert client.get("pods", "bad-1").status == 404
    client.cluster.admin.delete("/_local/faults")
    client.create(waiting("bad-1"))


def test_request_that_is_held_outlives_its_client(client: Client) -> None:
    misbehave(client, {"hold_ms": 600, "then": "proceed"}, times=1)
    connection = client.connect()
    client.send(connection, "POST", client.path("pods"), waiting("late"))
    time.sleep(0.1)  # the request is at the server
    connection.close()
    assert client.items() == []
    poll("it is carried out all the same", lambda: client.items() == ["late"])


@pytest.mark.parametrize(("action", "before"), [("latency_ms", False), ("latency_after_ms", True)])
def test_latency(client: Client, action: str, before: bool) -> None:
    misbehave(client, {action: 500}, times=1)
    connection = client.connect()
    client.send(connection, "POST", client.path("pods"), waiting("a"))
    began = time.monotonic()
    time.sleep(0.2)
    assert bool(client.items()) is before
    assert connection.getresponse().status == 201
    connection.close()
    assert time.monotonic() - began > 0.45


def test_rate_limit(client: Client) -> None:
    misbehave(client, {"rate_per_s": 5, "retry_after": 1})
    answers = [client.call("POST", client.path("pods"), waiting(f"p{n}")) for n in range(12)]
    statuses = [answer.status for answer in answers]
    assert statuses[:5] == [201] * 5
    assert set(statuses) == {201, 429}
    assert next(a for a in answers if a.status == 429).headers["Retry-After"] == "1"
    assert len(client.items()) == statuses.count(201)


def test_requests_are_counted(client: Client) -> None:
    def stats() -> dict[str, int]:
        return client.cluster.admin.get("/_local/stats")  # type: ignore[no-any-return]

    before = stats()
    client.create(waiting("a"))
    client.refused(waiting("a"))
    client.delete("a")
    after = stats()
    grown = {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}
    assert grown == {"create pods 201": 1, "create pods 409": 1, "delete pods 200": 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"match": {"verbs": "create"}, "action": {"status": 500}}),
        ("faults", {"match": {}}),
        ("faults", {"action": {"explode": True}}),
        ("watches", {"action": "explode"}),
        ("watches", {}),
        ("nothing", {}),
    ],
)
def test_orders_that_mean_nothing_are_refused(client: Client, path: str, body: Any) -> None:
    with pytest.raises(ClusterError, match=r"40[04]"):
        client.cluster.admin.post(f"/_local/{path}", body)


def test_node_loss_can_be_played(client: Client) -> None:
    client.create(pod("a", "sleep", "60"))
    client.phase("a", "Running")
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
    lost = {"phase": "Failed", "reason": "NodeLost", "conditions": [condition]}
    client.cluster.admin.post(f"/_local/pods/{client.namespace}/a/status", lost)
    assert client.delete("a").status == 200
    assert client.get("pods", "a").status == 404


@pytest.mark.parametrize(
    ("distribution", "least"),
    [({"min_ms": 200, "max_ms": 210}, 0.2), ({"p50_ms": 300, "p99_ms": 301}, 0.29)],
)
def test_latency_from_a_distribution(
    client: Client, distribution: dict[str, float], least: float
) -> None:
    misbehave(client, {"latency": distribution}, times=1)
    begun = time.monotonic()
    client.create(waiting("a"))
    assert time.monotonic() - begun >= least


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_proxys_answer_is_no_status_object(client: Client, status: int) -> None:
    misbehave(client, {"status": status, "plain": True, "message": "bad gateway"}, times=1)
    answer = client.refused(waiting("a"))
    assert (answer.status, answer.body) == (status, b"bad gateway\n")
    assert answer.headers["Content-Type"].startswith("text/plain")
    misbehave(client, {"status": status}, times=1)
    assert client.refused(waiting("a")).json["kind"] == "Status"


def test_a_muted_watch_has_bookmarks_only_and_gets_no_further(client: Client) -> None:
    with client.watch(allowWatchBookmarks="true") as watch:
        client.cluster.admin.post("/_local/watches", {"action": "mute"})
        client.unscheduled("a")
        version = int(client.pod("a")["metadata"]["resourceVersion"])
        for event, _ in zip(watch, range(3), strict=False):
            assert event["type"] == "BOOKMARK"
            assert int(event["object"]["metadata"]["resourceVersion"]) < version


def test_a_namespace_that_is_held_stays_terminating(client: Client) -> None:
    admin = client.cluster.admin
    other = Client(client.cluster, f"{client.namespace}-held")
    where = f"/api/v1/namespaces/{other.namespace}"
    admin.post("/api/v1/namespaces", {"metadata": {"name": other.namespace}})
    admin.post("/_local/namespaces", {"hold": True})
    try:
        client.call("DELETE", where)
        assert admin.get(where)["status"]["phase"] == "Terminating"
        refused = other.refused(waiting("a"))
        assert refused.status == 403
        assert "because it is being terminated" in refused.message
    finally:
        admin.post("/_local/namespaces", {"hold": False})
    assert client.call("GET", where).status == 404


def test_a_quota_by_order(client: Client) -> None:
    client.cluster.admin.post("/_local/quota", {"namespace": client.namespace, "pods": 1})
    client.unscheduled("a")
    assert "exceeded quota" in client.refused(waiting("b")).message
    client.cluster.admin.post("/_local/quota", {"namespace": client.namespace, "pods": None})
    client.unscheduled("b")


def test_restored_from_an_earlier_state(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, bookmark_interval=0.2) as cluster:
        client = Client(cluster)
        client.unscheduled("stays")
        client.unscheduled("comes-back")
        client.create(pod("runs", "sleep", "60"))
        client.phase("runs", "Running")
        client.create(pod("ran", "sleep", "60"))
        client.phase("ran", "Running")
        taken = cluster.admin.post("/_local/snapshot", {})["resourceVersion"]
        client.delete("comes-back")
        client.delete("ran", {"gracePeriodSeconds": 0})
        client.unscheduled("goes")
        client.create(pod("ends", "sleep", "60"))
        client.phase("ends", "Running")
        newer = int(client.get("pods").json["metadata"]["resourceVersion"])
        lost = cluster.admin.post("/_local/restore", {"keep_pods": True})["would_lose"]
        assert sorted(lost) == ["ends", "goes"]
        assert "goes" in client.items()
        with client.watch(resourceVersion=newer) as watch:
            assert cluster.admin.post("/_local/restore", {})["resourceVersion"] == taken
            assert list(watch) == []  # it was cut
        assert sorted(client.items()) == ["comes-back", "ran", "runs", "stays"]
        client.delete("ran")  # nothing of it runs any more, so that nothing has to end first
        deadline = time.monotonic() + 10
        while "ran" in client.items():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert int(client.get("pods").json["metadata"]["resourceVersion"]) < newer
        # Nobody hears of what the backup does not have; its version answers nothing.
        with client.watch(resourceVersion=newer, timeoutSeconds=1) as watch:
            assert list(watch) == []
        assert client.pod("runs")["status"]["phase"] == "Running"
        client.unscheduled("goes")
