"""Service accounts: roles as kbroker ships them, tokens, and kubeconfigs with these tokens."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import yaml

from tests.conformance.cluster import Cluster, Object, path, poll
from tests.integration.kube_world import write_kubeconfig

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "kubernetes"
_RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"
_RESOURCES = {"Role": "roles", "RoleBinding": "rolebindings"}


class Accounts:
    """Service accounts of one namespace.

    Args:
        cluster: as its administrator.
        namespace: where.
        folder: for kubeconfigs.
    """

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._folder = folder
        self._users: list[Cluster] = []

    def ship(self, name: str) -> str:
        """Apply config/kubernetes/<name>.yaml; the name of its service account."""
        for content in yaml.safe_load_all((SHIPPED / f"{name}.yaml").read_text()):
            self.apply(content)
        return f"kbroker-{name}"

    def make(self, name: str, rules: list[Object]) -> str:
        """A service account that may do this; its name."""
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.namespace}
        rbac, meta = "rbac.authorization.k8s.io/v1", {"metadata": {"name": name}}
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", **meta})
        self.apply({"apiVersion": rbac, "kind": "Role", **meta, "rules": rules})
        self.apply(
            {
                "apiVersion": rbac,
                "kind": "RoleBinding",
                **meta,
                "roleRef": role,
                "subjects": [subject],
            }
        )
        return name

    def apply(self, content: Object) -> None:
        """Create an account, a role or a binding."""
        if content["kind"] == "ServiceAccount":
            where = path("serviceaccounts", self.namespace)
        else:
            where = f"{_RBAC}/{self.namespace}/{_RESOURCES[content['kind']]}"
        self.cluster.call("POST", where, content).expect(201)

    def binding(self, name: str) -> str:
        """The path of a role binding."""
        return f"{_RBAC}/{self.namespace}/rolebindings/{name}"

    def token(self, name: str) -> str:
        """A token of a service account, for an hour."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        where = path("serviceaccounts", self.namespace, f"{name}/token")
        answer = self.cluster.call("POST", where, request).expect(201)
        return str(answer["status"]["token"])

    def kubeconfig(self, name: str) -> str:
        """Path of a kubeconfig with a token of a service account."""
        return self._written(name, self.token(name))

    def _written(self, name: str, token: str) -> str:
        entry = _cluster_entry(self.cluster.kubeconfig)
        server = entry.pop("server")
        where = self._folder / f"{name}.kubeconfig"
        return str(write_kubeconfig(where, server, {"token": token}, **entry))

    def user(self, name: str, *may: str) -> Cluster:
        """The cluster as a service account sees it, once it may do this: "list pods"."""
        user = self._seen(self.kubeconfig(name))
        for what in may:
            verb, resource = what.split()
            self.until(user, verb, resource)
        return user

    def stranger(self, token: str) -> Cluster:
        """The cluster as somebody with this token sees it."""
        return self._seen(self._written("stranger", token))

    def _seen(self, kubeconfig: str) -> Cluster:
        user = Cluster(kubeconfig, self.cluster.loop)
        self._users.append(user)
        return user

    def until(self, user: Cluster, verb: str, resource: str, allowed: bool = True) -> None:
        """Wait until a user may do something, or may not any more.

        The API server learns of roles, bindings and accounts a moment after they are made.
        """
        poll(
            f"whether {verb} {resource} is allowed: {allowed}",
            lambda: user.may(verb, resource, self.namespace) == allowed,
        )

    def close(self) -> None:
        """Close the users' connections."""
        for user in self._users:
            user.close()


def _cluster_entry(kubeconfig: str) -> dict[str, Any]:
    """The cluster that a kubeconfig's current context names, without paths relative to it."""
    source = Path(kubeconfig.split(os.pathsep, maxsplit=1)[0]).expanduser()
    content = yaml.safe_load(source.read_text())
    contexts = {entry["name"]: entry["context"] for entry in content["contexts"]}
    clusters = {entry["name"]: entry["cluster"] for entry in content["clusters"]}
    entry = dict(clusters[contexts[content["current-context"]]["cluster"]])
    authority = entry.pop("certificate-authority", None)
    if authority is not None:
        data = (source.parent / authority).read_bytes()
        entry["certificate-authority-data"] = base64.b64encode(data).decode()
    return {name.replace("-", "_"): value for name, value in entry.items()}
