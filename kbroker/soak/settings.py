"""What a soak is configured with: short times, and pods that know who they are."""

from __future__ import annotations

from typing import Any

# What takes minutes elsewhere is over in seconds, so that a soak meets all of it often.
QUICK: dict[str, Any] = {
    "broker.redelivery_after": 2.0,
    "broker.socket_timeout": 2.0,
    "core.executor_lease": 3.0,
    "core.reconcile_interval": 2.0,
    "core.relaunch_limit": 2,
    "kubernetes.create_window": 5.0,
    "kubernetes.retry_budget": 3.0,
    "kubernetes.request_timeout": 2.0,
    "launcher.park_base": 0.3,
    "launcher.park_max": 2.0,
    "launcher.park_lease": 5.0,
    "launcher.drain_interval": 0.2,
    "launcher.retry_after_max": 2.0,
    "watcher.lease": 2.0,
    "watcher.watch_timeout": 20.0,
    "watcher.silent_timeout": 4.0,
    "watcher.backoff_base": 0.1,
    "watcher.backoff_max": 1.0,
    "watcher.check_interval": 0.5,
    "watcher.fatal_waiting_grace": 1.0,
    "watcher.resync_interval": 60.0,
    "watcher.orphan_after": 20.0,
}
TEMPLATE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "spec": {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "base",
                "image": "busybox:1.37",
                "env": [
                    {
                        "name": "POD_UID",
                        "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}},
                    },
                    {
                        "name": "ATTEMPT",
                        "valueFrom": {
                            "fieldRef": {"fieldPath": "metadata.annotations['kbroker/attempt']"}
                        },
                    },
                ],
            }
        ],
    },
}
# Where a container finds its scratch folder in a cluster that is not on this machine.
SCRATCH = "/kbroker-soak"


def with_scratch(template: dict[str, Any]) -> dict[str, Any]:
    """The template with a folder that outlives a restart of the container."""
    (base,) = template["spec"]["containers"]
    mounted = {**base, "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}]}
    volumes = [{"name": "scratch", "emptyDir": {}}]
    return {**template, "spec": {**template["spec"], "containers": [mounted], "volumes": volumes}}
