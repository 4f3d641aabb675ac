"""A workload that travels in a Secret of its pod's own instead of on the command line.

The base container finds it in `WORKLOAD_FILE`. The Secret has the pod's name and belongs to the
pod: Kubernetes deletes it when the pod has gone.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

FOLDER = "/var/run/kbroker"
KEY = "workload.json"
WORKLOAD_FILE = f"{FOLDER}/{KEY}"
_VOLUME = "kbroker-workload"


def volume(pod: str) -> dict[str, Any]:
    """The volume of the pod of this name."""
    return {"name": _VOLUME, "secret": {"secretName": pod}}


def volume_mount() -> dict[str, Any]:
    """Where the base container has it."""
    return {"name": _VOLUME, "mountPath": FOLDER, "readOnly": True}


def takes_its_place(part: Mapping[str, Any]) -> bool:
    """Whether a volume or a mount of somebody else's stands where the workload's goes."""
    return part.get("name") == _VOLUME or part.get("mountPath") == FOLDER


def secret(workload: str, namespace: str, pod: str, uid: str, labels: dict[str, str]) -> Any:
    """The Secret's manifest.

    Args:
        workload: what is in it.
        namespace: the pod's.
        pod: the pod's name.
        uid: the pod's uid: with this pod it goes.
        labels: say whose it is.
    """
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": pod,
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [owner],
        },
        "type": "Opaque",
        # Not immutable: a launch that is published again may bring a newer token to the same pod.
        "data": {KEY: base64.b64encode(workload.encode()).decode()},
    }
