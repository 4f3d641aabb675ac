"""The partial view of a pod: what is read, what is skipped, what is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.pod import ApiStatus, Pod, PodLine, PodPage, WatchLine, seconds

# As a 1.36 API server gives it, shortened; managedFields and the like are skipped.
POD: dict[str, Any] = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "name": "dag-task-0123",
        "namespace": "jobs",
        "uid": "8ac3a0d9-9d0b-4a3c-a6b8-2d9bb2a6e9a0",
        "resourceVersion": "18446744073709551615",
        "generation": 1,
        "creationTimestamp": "2026-11-23T06:00:00Z",
        "deletionTimestamp": "2026-11-23T06:01:00Z",
        "labels": {"dag_id": "dag"},
        "annotations": {"dag_id": "dag"},
        "managedFields": [{"manager": "kbroker", "fieldsV1": {"f:spec": {}}}],
    },
    "spec": {
        "nodeName": "node-1",
        "restartPolicy": "Never",
        "initContainers": [{"name": "proxy", "image": "p", "restartPolicy": "Always"}],
        "containers": [{"name": "base", "image": "busybox:1.37", "env": [{"name": "A"}]}],
    },
    "status": {
        "phase": "Running",
        "reason": "Evicted",
        "message": "low on memory",
        "hostIP": "10.0.0.1",
        "startTime": "2026-11-23T06:00:01Z",
        "conditions": [
            {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "TerminationByKubelet",
                "lastTransitionTime": "2026-11-23T06:00:02Z",
                "observedGeneration": 1,
            }
        ],
        "initContainerStatuses": [
            {"name": "proxy", "state": {"running": {"startedAt": "2026-11-23T06:00:01Z"}}}
        ],
        "containerStatuses": [
            {
                "name": "base",
                "containerID": "containerd://77",
                "restartCount": 1,
                "started": False,
                "state": {
                    "terminated": {
                        "exitCode": 137,
                        "reason": "OOMKilled",
                        "startedAt": "2026-11-23T06:00:02Z",
                        "finishedAt": "2026-11-23T06:00:03Z",
                    }
                },
                "lastState": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "imageID": "sha256:77",
            }
        ],
    },
}


@pytest.mark.parametrize(
    "pod", [Pod.decode(orjson.dumps(POD)), Pod.from_dict(POD)], ids=["JSON", "dict"]
)
def test_everything_that_rules_look_at(pod: Pod) -> None:
    assert (pod.name, pod.namespace, pod.node, pod.phase) == (
        "dag-task-0123",
        "jobs",
        "node-1",
        "Running",
    )
    assert pod.uid == POD["metadata"]["uid"]
    assert pod.resource_version == 2**64 - 1
    assert pod.annotations == {"dag_id": "dag"}
    assert pod.metadata.creation_timestamp == "2026-11-23T06:00:00Z"
    assert pod.metadata.deletion_timestamp == "2026-11-23T06:01:00Z"
    assert pod.spec is not None
    assert pod.spec.init_containers is not None
    assert pod.spec.init_containers[0].restart_policy == "Always"
    status = pod.status
    assert status is not None
    assert (status.reason, status.message) == ("Evicted", "low on memory")
    assert seconds(status.start_time) == 1795413601.0
    assert status.conditions is not None
    assert status.conditions[0].last_transition_time == "2026-11-23T06:00:02Z"
    assert status.init_container_statuses is not None
    assert status.container_statuses is not None
    base = status.container_statuses[0]
    assert (base.name, base.container_id, base.restart_count, base.started) == (
        "base",
        "containerd://77",
        1,
        False,
    )
    assert base.state is not None
    assert base.state.terminated is not None
    assert (base.state.terminated.exit_code, base.state.terminated.reason) == (137, "OOMKilled")
    assert base.last_state is not None
    assert base.last_state.waiting is not None
    assert base.last_state.waiting.reason == "CrashLoopBackOff"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"metadata": {}, "spec": {}, "status": {}},
        {"metadata": {"annotations": None}, "spec": None, "status": None},
        {"spec": {"nodeName": ""}, "status": {"phase": ""}},
    ],
)
def test_a_pod_that_nobody_has_looked_at_yet(content: dict[str, Any]) -> None:
    pod = Pod.decode(orjson.dumps(content))
    assert (pod.annotations, pod.resource_version, pod.node, pod.phase) == ({}, 0, None, "Pending")


def test_an_empty_part_is_there() -> None:
    state = Pod.from_dict(
        {"status": {"containerStatuses": [{"name": "base", "state": {"running": {}}}]}}
    )
    assert state.status is not None
    assert state.status.container_statuses is not None
    found = state.status.container_statuses[0].state
    assert found
    assert found.running


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'"pod"',
        b'{"metadata": {"name": 7}}',
        b'{"metadata": []}',
        b'{"status": {"containerStatuses": {}}}',
        b'{"metadata": {"name": "cut',
        b"\xff\xfe",
    ],
)
def test_what_is_no_pod_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        Pod.decode(data)


@given(st.binary(max_size=60))
def test_garbage_is_never_another_error(data: bytes) -> None:
    for decode in (Pod.decode, PodPage.decode, PodLine.decode, WatchLine.decode):
        with contextlib.suppress(ValueError):
            decode(data)
    assert isinstance(ApiStatus.decode(data), ApiStatus)


def test_a_page() -> None:
    content = {
        "kind": "PodList",
        "metadata": {"resourceVersion": "77", "continue": "abc", "remainingItemCount": 3},
        "items": [POD, POD],
    }
    page = PodPage.decode(orjson.dumps(content))
    assert (page.version, page.metadata.continue_token, len(page.items)) == (77, "abc", 2)
    assert page.items[0] == Pod.from_dict(POD)


def test_the_last_page() -> None:
    page = PodPage.decode(b'{"metadata": {"resourceVersion": "77"}, "items": []}')
    assert (page.version, page.metadata.continue_token, page.items) == (77, None, ())


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"])
def test_a_line_of_a_watch_keeps_the_object_undecoded(kind: str) -> None:
    line = WatchLine.decode(orjson.dumps({"type": kind, "object": POD}))
    assert line.type == kind
    assert orjson.loads(bytes(line.object)) == POD


@pytest.mark.parametrize("line", [b'{"type": "ADDED"}', b'{"type": "RENAMED", "object": {}}'])
def test_a_line_that_means_nothing(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        WatchLine.decode(line)


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"])
@pytest.mark.parametrize("type_first", [True, False])
def test_a_line_about_a_pod_is_decoded_at_once(kind: str, type_first: bool) -> None:
    fields = [("type", kind), ("object", POD)]
    line = PodLine.decode(orjson.dumps(dict(fields if type_first else reversed(fields))))
    assert (line.type, line.object) == (kind, Pod.from_dict(POD))


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "ADDED"}',
        b'{"type": "ADDED", "object": null}',
        b'{"type": "ADDED", "object": {"kind": "Status", "status": "Failure"}}',
        b'{"type": "RENAMED", "object": {}}',
        b'{"type": "ERROR", "object": {}}',
        b'{"object": {}}',
        b'{"type": "ADDED", "object": {}} {}',
    ],
)
def test_a_line_that_is_about_no_pod(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        PodLine.decode(line)


def test_a_status() -> None:
    status = ApiStatus.decode(
        b'{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", '
        b'"message": "pods \\"a\\" already exists", "reason": "AlreadyExists", '
        b'"details": {"name": "a", "kind": "pods", "retryAfterSeconds": 3}, "code": 409}'
    )
    assert (status.code, status.reason) == (409, "AlreadyExists")
    assert status.message == 'pods "a" already exists'
    assert status.details == {"name": "a", "kind": "pods", "retryAfterSeconds": 3}


@pytest.mark.parametrize("data", [b"", b"<html>502</html>", b"[1]", b'{"message": 7}', b"\xff"])
def test_what_is_no_status_is_an_empty_one(data: bytes) -> None:
    assert ApiStatus.decode(data).reason == ""


@pytest.mark.parametrize(
    ("timestamp", "moment"),
    [
        ("2026-11-23T06:00:00Z", 1795413600.0),
        ("2026-11-23T06:00:00.25Z", 1795413600.25),
        ("2026-11-23T07:00:00+01:00", 1795413600.0),
        ("1970-01-01T00:00:00Z", None),
        ("2026-11-23T06:00:00", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_timestamps(timestamp: str | None, moment: float | None) -> None:
    assert seconds(timestamp) == moment
