"""The pods of one case."""

from __future__ import annotations

import copy
import itertools
import secrets
from typing import Any

from kbroker.pod import Pod
from tests.conformance.cluster import Cluster, Object, path
from tests.conformance.watch import Watch

# Of no cluster: only the suite binds these pods.
SCHEDULER = "kbroker-conformance"
IMAGE = "busybox:1.37"
MERGE = "application/merge-patch+json"
CASE = "kbroker-conformance/case"


def remove(cluster: Cluster, namespace: str, name: str) -> None:
    """Remove a pod, whatever holds it, whether or not its node exists."""
    free = {"metadata": {"finalizers": None}}
    cluster.call("PATCH", path("pods", namespace, name), free, MERGE)
    cluster.call("DELETE", path("pods", namespace, name, gracePeriodSeconds=0))


class Pods:
    """Makes pods that a selector of the case's own finds; `remove` removes what is left.

    Args:
        cluster: where.
        namespace: name of an existing namespace.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.kube = cluster.kube
        self.namespace = namespace
        self.case = f"c{secrets.token_hex(4)}"
        self.selector = f"{CASE}={self.case}"
        self._numbers = itertools.count(1)
        self._watches: list[Watch] = []

    def manifest(self, *command: str, **spec: Any) -> Object:
        """A pod that nothing starts, under a name of its own; `labels` are for its metadata."""
        labels = {CASE: self.case, **spec.pop("labels", {})}
        container = {"name": "base", "image": IMAGE, "command": list(command or ("true",))}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{self.case}-{next(self._numbers)}", "labels": labels},
            "spec": {
                "schedulerName": SCHEDULER,
                "restartPolicy": "Never",
                "containers": [container],
                **copy.deepcopy(spec),
            },
        }

    def create(self, *command: str, **spec: Any) -> Pod:
        """Create one."""
        return Pod.decode(self.post(self.manifest(*command, **spec)))

    def post(self, manifest: Object) -> bytes:
        """Create this one."""
        return self.cluster.do(self.kube.create_pod(self.namespace, manifest))

    def get(self, name: str) -> Pod:
        """One as it stands."""
        return Pod.decode(self.cluster.do(self.kube.get_pod(self.namespace, name)))

    def whole(self, name: str) -> Object:
        """The same with all of its fields."""
        return self.cluster.call("GET", self.path(name)).expect(200)

    def exists(self, name: str) -> bool:
        """Whether there is such a pod."""
        answer = self.cluster.call("GET", self.path(name))
        assert answer.status in (200, 404), answer.body
        return answer.status == 200

    def delete(self, pod: Pod, **options: Any) -> None:
        """Delete exactly this pod."""
        asked = {"uid": pod.uid, **options}
        self.cluster.do(self.kube.delete_pod(self.namespace, pod.name, **asked))

    def version(self) -> int:
        """The cluster's present resource version."""
        page = self.cluster.do(self.kube.list_pods(self.namespace, self.selector, limit=1))
        return page.version

    def names(self, **query: Any) -> list[str]:
        """The names that a list with this query gives, in order."""
        query.setdefault("labelSelector", self.selector)
        answer = self.cluster.call("GET", self.path("", **query))
        return [item["metadata"]["name"] for item in answer.expect(200)["items"]]

    def path(self, name: str = "", **query: Any) -> str:
        """The path of all pods, or of one."""
        return path("pods", self.namespace, name, **query)

    def watch(self, version: int, *, timeout: float = 60.0, selector: str = "") -> Watch:
        """Watch them from a version on."""
        watch = Watch(self.cluster, self.namespace, selector or self.selector, version, timeout)
        self._watches.append(watch)
        return watch

    def remove(self) -> None:
        """Remove those that are left, and end the watches."""
        for watch in self._watches:
            watch.close()
        for name in self.names():
            remove(self.cluster, self.namespace, name)
