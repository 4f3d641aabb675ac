"""Server-side printing: the Tables that kubectl shows.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from kbroker.local.cluster.report import ENDED
from kbroker.local.cluster.store import Object, Stored

_POD_COLUMNS = [
    ("Name", "name", 0),
    ("Ready", "", 0),
    ("Status", "", 0),
    ("Restarts", "", 0),
    ("Age", "", 0),
    ("IP", "", 1),
    ("Node", "", 1),
    ("Nominated Node", "", 1),
    ("Readiness Gates", "", 1),
]
_EVENT_COLUMNS = [
    ("Last Seen", "", 0),
    ("Type", "", 0),
    ("Reason", "", 0),
    ("Object", "", 0),
    ("Message", "", 0),
]
_PLAIN_COLUMNS = [("Name", "name", 0), ("Status", "", 0), ("Age", "", 0)]


def table(resource: str, items: Iterable[Stored], metadata: Object, *, header: bool) -> Object:
    """The objects as rows; `header` is left out in all but the first object of a watch."""
    columns, cells = _LAYOUTS.get(resource, (_PLAIN_COLUMNS, _plain_cells))
    result: Object = {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [
            {"name": name, "type": "string", "format": form, "description": name, "priority": low}
            for name, form, low in columns
        ]
        if header
        else None,
        "rows": [
            {
                "cells": cells(stored.object),
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": stored.object["metadata"],
                },
            }
            for stored in items
        ],
    }
    return result


def pod_status_word(pod: Object) -> str:
    """The word in kubectl's STATUS column."""
    status = pod["status"]
    word: str = status.get("reason") or status["phase"]
    init = _init_word(status, pod["spec"].get("initContainers") or [])
    if init:
        word = init
    else:
        containers = status.get("containerStatuses", [])
        for container in reversed(containers):
            word = _container_word(container["state"]) or word
        if word == "Completed" and any(c.get("ready") for c in containers):
            word = "NotReady"
    if pod["metadata"].get("deletionTimestamp") and status["phase"] not in ENDED:
        return "Terminating"
    return word


def _container_word(state: Object) -> str | None:
    for kind in ("waiting", "terminated"):
        if kind in state:
            reason = state[kind].get("reason")
            if reason:
                return str(reason)
            code = state[kind].get("exitCode")
            return None if code is None else f"ExitCode:{code}"
    return None


def _init_word(status: Object, specs: list[Object]) -> str | None:
    sidecars = {spec["name"] for spec in specs if spec.get("restartPolicy") == "Always"}
    given = [s for s in status.get("initContainerStatuses", []) if s["name"] not in sidecars]
    for done, container in enumerate(given):
        state = container["state"]
        if "terminated" in state:
            if state["terminated"]["exitCode"] == 0:
                continue
            return f"Init:{_container_word(state)}"
        word = _container_word(state)
        if word and word != "PodInitializing":
            return f"Init:{word}"
        return f"Init:{done}/{len(given)}"
    return None


def _pod_cells(pod: Object) -> list[Any]:
    status = pod["status"]
    containers = status.get("containerStatuses", [])
    total = len(pod["spec"]["containers"])
    return [
        pod["metadata"]["name"],
        f"{sum(bool(c.get('ready')) for c in containers)}/{total}",
        pod_status_word(pod),
        str(sum(c.get("restartCount", 0) for c in containers)),
        _age(pod["metadata"]["creationTimestamp"]),
        status.get("podIP") or "<none>",
        pod["spec"].get("nodeName") or "<none>",
        "<none>",
        "<none>",
    ]


def _event_cells(event: Object) -> list[Any]:
    about = event["involvedObject"]
    return [
        _age(event.get("lastTimestamp")),
        event.get("type", ""),
        event.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        event.get("message", ""),
    ]


def _plain_cells(content: Object) -> list[Any]:
    status = content.get("status", {})
    return [
        content["metadata"]["name"],
        str(status.get("phase", "Active")),
        _age(content["metadata"].get("creationTimestamp")),
    ]


_LAYOUTS: dict[str, tuple[list[tuple[str, str, int]], Callable[[Object], list[Any]]]] = {
    "pods": (_POD_COLUMNS, _pod_cells),
    "events": (_EVENT_COLUMNS, _event_cells),
}


def _age(moment: str | None) -> str:
    if not moment:
        return "<unknown>"
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    if seconds < 120:
        return f"{max(0, seconds)}s"
    if seconds < 7200:
        return f"{seconds // 60}m"
    return f"{seconds // 3600}h" if seconds < 172800 else f"{seconds // 86400}d"
