"""What the launchers of a soak may do in the local cluster, and taking it from them."""

from __future__ import annotations

import contextlib

from kbroker.errors import ClusterError
from kbroker.local.cluster_process import AdminClient

_NAME = "kbroker-soak-launcher"
_GROUP = "rbac.authorization.k8s.io"
_API = f"/apis/{_GROUP}/v1/namespaces/default"
_ROLE = {
    "metadata": {"name": _NAME},
    "rules": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "patch", "delete"]}
    ],
}
_BINDING = {
    "metadata": {"name": _NAME},
    "roleRef": {"apiGroup": _GROUP, "kind": "Role", "name": _NAME},
    "subjects": [{"apiGroup": _GROUP, "kind": "User", "name": _NAME}],
}


class LauncherRole:
    """A user with the role of config/kubernetes/launcher.yaml.

    Args:
        admin: of the local cluster.

    Attributes:
        token: the user's.
    """

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        admin.post(f"{_API}/roles", _ROLE)
        self.give()
        self.token: str = admin.post("/_local/tokens", {"user": _NAME})["token"]

    def give(self) -> None:
        """The user has its role."""
        with contextlib.suppress(ClusterError):  # it has it already
            self._admin.post(f"{_API}/rolebindings", _BINDING)

    def take(self) -> None:
        """The user has no role any more."""
        with contextlib.suppress(ClusterError):  # it has none already
            self._admin.delete(f"{_API}/rolebindings/{_NAME}")
