"""Faults on demand, seen by a client."""

from __future__ import annotations

import http.client
import time
from typing import Any

import pytest

from kbroker.errors import ClusterError
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
