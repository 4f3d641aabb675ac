"""`dryRun=All`: checked and answered like the real thing, and nothing changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.local_cluster.client import Answer, Client, pod

DRY = {"dryRun": "All"}
CONFIG = {"kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "1"}}


def send(client: Client, method: str, name: str, body: Any, **query: str) -> Answer:
    headers = {"Content_Type": "application/merge-patch+json"} if method == "PATCH" else {}
    return client.call(method, client.path("configmaps", name, **query), body, **headers)


@pytest.mark.parametrize(
    ("method", "name", "body", "query", "status"),
    [
        ("POST", "", {"metadata": {"name": "new"}}, DRY, 201),
        ("PUT", "kept", {**CONFIG, "data": {"a": "2"}}, DRY, 200),
        ("PATCH", "kept", {"data": {"a": "2"}}, DRY, 200),
        ("DELETE", "kept", None, DRY, 200),
        ("DELETE", "kept", {"dryRun": ["All"]}, {}, 200),
        ("DELETE", "", None, DRY, 200),
        ("POST", "", CONFIG, DRY, 409),
        ("POST", "", {"metadata": {"name": "Not-A-Name"}}, DRY, 422),
        ("PATCH", "absent", {"data": {"a": "2"}}, DRY, 404),
        ("POST", "", {"metadata": {"name": "new"}}, {"dryRun": "Some"}, 422),
        ("DELETE", "kept", {"dryRun": ["Some"]}, {}, 422),
    ],
)
def test_nothing_changes_and_no_watch_sees_it(
    client: Client, method: str, name: str, body: Any, query: dict[str, str], status: int
) -> None:
    before = client.create(CONFIG, "configmaps")
    listed = client.get("configmaps").json
    answer = send(client, method, name, body, **query)
    assert answer.status == status, answer.body
    if status < 300 and method in ("PUT", "PATCH"):
        assert answer.json["data"] == {"a": "2"}
    assert client.get("configmaps").json == listed
    version = before["metadata"]["resourceVersion"]
    with client.watch("configmaps", resourceVersion=version) as watch:
        client.create({"kind": "ConfigMap", "metadata": {"name": "after"}}, "configmaps")
        assert watch.take(1) == [("ADDED", "after")]


def test_a_pod_does_not_run_and_a_namespace_stays(client: Client) -> None:
    answer = client.call("POST", client.path("pods", **DRY), pod("a", "true"))
    assert (answer.status, answer.json["status"]["phase"]) == (201, "Pending")
    assert client.items() == []
    space = f"/api/v1/namespaces/{client.namespace}"
    assert client.call("DELETE", f"{space}?dryRun=All").status == 200
    assert client.call("GET", space).json["status"] == {"phase": "Active"}
    client.create(pod("a", "true"))
    client.phase("a", "Succeeded")


def test_admission_is_asked(client: Client) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    client.create({"kind": "ResourceQuota", **quota}, "resourcequotas")
    answer = client.call("POST", client.path("pods", **DRY), pod("a", "true"))
    assert answer.status == 403
    assert "exceeded quota" in answer.message
