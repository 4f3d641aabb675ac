"""The cluster's pods, as its API server knows them."""

from __future__ import annotations

from typing import Any

from kbroker.local.cluster_process import AdminClient


class Pods:
    """The pods of a namespace.

    Args:
        admin: requests to the local cluster.
        namespace: where they are.
    """

    def __init__(self, admin: AdminClient, namespace: str) -> None:
        self._admin = admin
        self._namespace = namespace

    def all(self) -> dict[str, dict[str, Any]]:
        """Name → pod."""
        found = self._admin.get(f"/api/v1/namespaces/{self._namespace}/pods")["items"]
        return {pod["metadata"]["name"]: pod for pod in found}

    def of(self, run: str, task: str = "") -> dict[str, dict[str, Any]]:
        """The pods of a run, or of one of its tasks."""
        return {
            name: pod
            for name, pod in self.all().items()
            if pod["metadata"]["annotations"].get("run_id") == run
            and task in ("", pod["metadata"]["annotations"]["task_id"])
        }

    def summary(self) -> str:
        """One line for each pod."""
        return "\n".join(
            f"{pod['metadata']['annotations'].get('run_id')} {name} {pod['status']['phase']} "
            f"deleted: {pod['metadata'].get('deletionTimestamp')}"
            for name, pod in self.all().items()
        )

    def seen(self, prefix: str) -> set[str]:
        """Names of the pods that there are or were, by the events about them.

        Args:
            prefix: what the names begin with.
        """
        found = self._admin.get(f"/api/v1/namespaces/{self._namespace}/events")["items"]
        names = {event["involvedObject"]["name"] for event in found}
        return {name for name in names if name.startswith(prefix)}
