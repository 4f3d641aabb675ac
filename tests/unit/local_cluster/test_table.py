"""The word in kubectl's STATUS column, by table."""

from __future__ import annotations

from typing import Any

import pytest

from kbroker.local.cluster.store import Stored
from kbroker.local.cluster.table import pod_status_word, table


def waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason}}


def ended(code: int, reason: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, **({"reason": reason} if reason else {})}}


RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def pod(phase: str, *states: dict[str, Any], **more: Any) -> dict[str, Any]:
    names = ["base", "side"]
    containers = [
        {"name": name, "state": state, "ready": state is RUNNING, "restartCount": 0}
        for name, state in zip(names, states, strict=False)
    ]
    inits = [{"name": f"init-{n}", "state": state} for n, state in enumerate(more.pop("inits", []))]
    deletion = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if more.pop("deleted", False) else {}
    metadata = {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z", **deletion}
    return {
        "metadata": metadata,
        "spec": {
            "containers": [{"name": name} for name in names[: max(1, len(states))]],
            "initContainers": [{"name": status["name"]} for status in inits],
        },
        "status": {
            "phase": phase,
            "containerStatuses": containers,
            "initContainerStatuses": inits,
            **more,
        },
    }


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (pod("Pending"), "Pending"),
        (pod("Pending", waiting("ContainerCreating")), "ContainerCreating"),
        (pod("Pending", waiting("ImagePullBackOff")), "ImagePullBackOff"),
        (pod("Running", RUNNING), "Running"),
        (pod("Running", waiting("CrashLoopBackOff")), "CrashLoopBackOff"),
        (pod("Running", RUNNING, deleted=True), "Terminating"),
        (pod("Succeeded", ended(0, "Completed"), deleted=True), "Completed"),
        (pod("Running", ended(0, "Completed"), RUNNING), "NotReady"),
        (pod("Succeeded", ended(0, "Completed")), "Completed"),
        (pod("Failed", ended(1, "Error")), "Error"),
        (pod("Failed", ended(137, "OOMKilled")), "OOMKilled"),
        (pod("Failed", ended(7)), "ExitCode:7"),
        (pod("Failed", reason="Evicted"), "Evicted"),
        (pod("Failed", reason="DeadlineExceeded"), "DeadlineExceeded"),
        (pod("Failed", ended(1, "Error"), ended(0, "Completed")), "Error"),
        (pod("Pending", waiting("PodInitializing"), inits=[RUNNING, {}]), "Init:0/2"),
        (pod("Pending", waiting("PodInitializing"), inits=[ended(0), RUNNING]), "Init:1/2"),
        (pod("Failed", waiting("PodInitializing"), inits=[ended(3, "Error")]), "Init:Error"),
        (
            pod("Pending", waiting("PodInitializing"), inits=[waiting("ErrImagePull")]),
            "Init:ErrImagePull",
        ),
    ],
)
def test_word(content: dict[str, Any], word: str) -> None:
    assert pod_status_word(content) == word


@pytest.mark.parametrize("resource", ["pods", "secrets"])
def test_columns_and_cells_agree(resource: str) -> None:
    shown = table(resource, [Stored(1, pod("Running", RUNNING))], {}, header=True)
    assert len(shown["columnDefinitions"]) == len(shown["rows"][0]["cells"])
    later = table(resource, [], {}, header=False)
    assert later["columnDefinitions"] is None
