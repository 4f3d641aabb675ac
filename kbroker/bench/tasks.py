"""What is launched: tasks, and the pods of about 2 KB that they become."""

from __future__ import annotations

import time
from typing import Any

from kbroker.kube_config import KubeConfig
from kbroker.manifests import Manifests
from kbroker.message import LaunchRequest
from kbroker.task import TaskKey
from kbroker.tracked import track

DAG = "bench"
# No scheduler of this name exists: its pods are created, and never run.
NOBODY = "kbroker-bench-nobody"
# The bench itself binds these, and plays their lives.
PLAYER = "kbroker-bench-player"
# The prepared pods' permission must outlive the preparations and the run.
_PREPARED_FOR = 3600.0
_WORDS = "nothing to do, at the length that a task's command line commonly has, more or less"


def template(scheduler: str | None) -> dict[str, Any]:
    """The pod template, for pods that this scheduler is to bind; None for the default one."""
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "base",
                "image": "busybox:1.37",
                "env": [{"name": f"VARIABLE_{n}", "value": "v" * 40} for n in range(8)],
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            }
        ],
    }
    if scheduler is not None:
        spec["schedulerName"] = scheduler
    return {"apiVersion": "v1", "kind": "Pod", "spec": spec}


def request(group: str, number: int) -> LaunchRequest:
    """One of a group's tasks."""
    task = f"{group}-{number:06d}"
    command = ["sh", "-c", f"exit 0 # {task}: {_WORDS}"]
    return LaunchRequest(TaskKey(DAG, task, "bench"), command, f"launch-{task}")


def bodies(config: KubeConfig, group: str, numbers: range) -> list[bytes]:
    """The pods that launchers would create for these tasks, as JSON."""
    manifests = Manifests(config.kubernetes)
    now = time.time()
    before = int((now + _PREPARED_FOR) * 1000)
    return [
        manifests.body(track(request(group, n), config, "bench", now).message, before)
        for n in numbers
    ]
