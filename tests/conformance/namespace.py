"""A namespace of the suite's own, with what a controller would put into it."""

from __future__ import annotations

import secrets
import time

from tests.conformance.cluster import Cluster, path
from tests.conformance.pods import remove

_REMOVED_WITHIN = 3.0


class Namespace:
    """A new namespace; `with` removes it again.

    Args:
        cluster: where, as its administrator.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.name = f"kbroker-conformance-{secrets.token_hex(4)}"

    def __enter__(self) -> Namespace:
        content = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}}
        self.cluster.call("POST", "/api/v1/namespaces", content).expect(201)
        # Pods are refused until it exists, and there may be no controller to make it.
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default"},
        }
        made = self.cluster.call("POST", path("serviceaccounts", self.name), account)
        assert made.status in (201, 409), made.body
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the pods, then the namespace.

        Without a namespace controller it stays for ever in the phase Terminating.
        """
        pods = self.cluster.call("GET", path("pods", self.name)).expect(200)
        for pod in pods["items"]:
            remove(self.cluster, self.name, pod["metadata"]["name"])
        self.cluster.call("DELETE", f"/api/v1/namespaces/{self.name}")
        deadline = time.monotonic() + _REMOVED_WITHIN
        while time.monotonic() < deadline:
            if self.cluster.call("GET", f"/api/v1/namespaces/{self.name}").status == 404:
                return
            time.sleep(0.1)
