"""A ResourceQuota on the number of pods, with the status that a controller would fill in."""

from __future__ import annotations

from tests.conformance.cluster import Cluster, path, poll
from tests.conformance.pods import Pods

_MERGE = "application/merge-patch+json"


class Quota:
    """At most so many pods in a namespace; `with` removes it.

    Args:
        cluster: as its administrator.
        namespace: where.
        pods: how many.
    """

    name = "kbroker-conformance"

    def __init__(self, cluster: Cluster, namespace: str, pods: int) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._hard = {"pods": str(pods)}

    def __enter__(self) -> Quota:
        content = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": self.name},
            "spec": {"hard": self._hard},
        }
        where = path("resourcequotas", self._namespace)
        self._cluster.call("POST", where, content).expect(201)
        # Without it nothing is admitted at all, and there may be no controller to fill it in.
        status = {"status": {"hard": self._hard, "used": {"pods": "0"}}}
        self._cluster.call("PATCH", f"{where}/{self.name}/status", status, _MERGE).expect(200)
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.call("DELETE", path("resourcequotas", self._namespace, self.name))

    def until_exceeded(self, pods: Pods) -> str:
        """Create pods until one is refused, in the words returned.

        Admission learns of a quota a moment after it was made.
        """

        def refused() -> str:
            answer = self._cluster.call("POST", pods.path(), pods.manifest())
            if answer.status == 201 or "status unknown for quota" in answer.json["message"]:
                return ""
            told = answer.expect(403)
            assert told["reason"] == "Forbidden"
            return str(told["message"])

        return poll("the quota is known", refused)
