"""The official Python client against the local cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from kubernetes import client as official
from kubernetes import config, watch

from tests.integration.local_cluster.client import Client, pod


@pytest.fixture
def api(client: Client) -> Iterator[official.CoreV1Api]:
    with config.new_client_from_config(str(client.cluster.kubeconfig)) as connection:
        yield official.CoreV1Api(connection)


def test_life_of_a_pod(api: official.CoreV1Api, client: Client) -> None:
    namespace = client.namespace
    created = api.create_namespaced_pod(namespace, pod("a", "sh", "-c", "echo hello"))
    assert created.metadata.uid
    phases = []
    stream = watch.Watch().stream(
        api.list_namespaced_pod, namespace, timeout_seconds=10, label_selector="!x"
    )
    for event in stream:
        phases.append(event["object"].status.phase)
        if phases[-1] == "Succeeded":
            break
    assert phases[-1] == "Succeeded"
    assert api.read_namespaced_pod_log("a", namespace).strip() == "hello"
    read = api.read_namespaced_pod("a", namespace)
    assert read.status.container_statuses[0].state.terminated.exit_code == 0
    assert [item.metadata.name for item in api.list_namespaced_pod(namespace).items] == ["a"]
    api.delete_namespaced_pod("a", namespace)
    with pytest.raises(official.ApiException) as missing:
        api.read_namespaced_pod("a", namespace)
    assert missing.value.status == 404


def test_preconditions_and_patch(api: official.CoreV1Api, client: Client) -> None:
    made = api.create_namespaced_pod(client.namespace, pod("a", "sleep", "60"))
    patched = api.patch_namespaced_pod("a", client.namespace, {"metadata": {"labels": {"x": "1"}}})
    assert patched.metadata.labels["x"] == "1"
    for uid, status in (("wrong", 409), (made.metadata.uid, None)):
        body = {"preconditions": {"uid": uid}, "gracePeriodSeconds": 1}
        if status is None:
            api.delete_namespaced_pod("a", client.namespace, body=body)
            continue
        with pytest.raises(official.ApiException) as refused:
            api.delete_namespaced_pod("a", client.namespace, body=body)
        assert refused.value.status == status


def test_reading_goes_on_after_the_servers_timeout(api: official.CoreV1Api, client: Client) -> None:
    began = time.monotonic()
    events = list(
        watch.Watch().stream(api.list_namespaced_pod, client.namespace, timeout_seconds=1)
    )
    assert events == []
    assert time.monotonic() - began < 5
