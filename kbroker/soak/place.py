"""The cluster of a soak: a local one that misbehaves on demand, or any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import yaml

from kbroker.errors import ClusterError
from kbroker.local.cluster_process import AdminClient, LocalCluster
from kbroker.soak.role import LauncherRole

# What `kubectl` takes where a kubeconfig's context names none.
_NAMESPACE = "default"


class Place(Protocol):
    """A cluster."""

    @property
    def kubeconfig(self) -> Path:
        """What leads to it, past every proxy."""

    @property
    def namespace(self) -> str:
        """Where the pods of the soak are."""

    @property
    def admin(self) -> AdminClient:
        """Makes a local cluster misbehave; raises ClusterError for any other."""

    @property
    def role(self) -> LauncherRole:
        """What the launchers may do in a local cluster; raises likewise."""

    def launcher_user(self) -> dict[str, Any]:
        """Whom the launchers are, as the "user" of a kubeconfig."""

    def start(self) -> None:
        """Have it."""

    def stop(self) -> None:
        """End it, if it is ours."""


class LocalPlace:
    """A local cluster that lives as long as the soak.

    Args:
        folder: its logs and its state.
        policy: whether it refuses late creates.
    """

    namespace = _NAMESPACE

    def __init__(self, folder: Path, *, policy: bool) -> None:
        self._cluster = LocalCluster(
            folder, bookmark_interval=1.0, max_pods=250, no_create_before_policy=not policy
        )
        self._role: LauncherRole | None = None

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self._cluster.kubeconfig

    @property
    def admin(self) -> AdminClient:
        """Makes it misbehave."""
        return self._cluster.admin

    @property
    def role(self) -> LauncherRole:
        """Of the launchers."""
        if self._role is None:
            self._role = LauncherRole(self.admin)
        return self._role

    def launcher_user(self) -> dict[str, Any]:
        """A user with just the role of a launcher."""
        return {"token": self.role.token}

    def start(self) -> None:
        """Start it."""
        self._cluster.start()

    def stop(self) -> None:
        """Stop it."""
        self._cluster.stop()


class GivenPlace:
    """Whatever a kubeconfig's present context leads to.

    Args:
        kubeconfig: its path.

    Raises:
        ClusterError: it cannot be read, or its context is incomplete.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig.resolve()
        self.context = Context.read(self.kubeconfig)
        self.namespace = self.context.namespace

    @property
    def admin(self) -> AdminClient:
        """There is none."""
        raise ClusterError("only the local cluster misbehaves on demand")

    @property
    def role(self) -> LauncherRole:
        """It is not ours to change."""
        raise ClusterError("only in the local cluster the launchers have a role of their own")

    def launcher_user(self) -> dict[str, Any]:
        """The same user as everybody's."""
        return self.context.user

    def start(self) -> None:
        """It runs."""

    def stop(self) -> None:
        """It runs on."""


class Context:
    """The present context of a kubeconfig, as it leads there and as it would over a proxy.

    Args:
        cluster: its cluster.
        user: its user.
        namespace: its namespace.
    """

    def __init__(self, cluster: dict[str, Any], user: dict[str, Any], namespace: str) -> None:
        self.cluster = cluster
        self.user = user
        self.namespace = namespace

    @classmethod
    def read(cls, path: Path) -> Context:
        """Read it.

        Raises:
            ClusterError: it cannot be read, or is incomplete.
        """
        try:
            content = yaml.safe_load(path.read_text())
            named = {
                kind: {entry["name"]: entry[kind] for entry in content.get(f"{kind}s") or []}
                for kind in ("context", "cluster", "user")
            }
            context = named["context"][content["current-context"]]
            cluster, user = named["cluster"][context["cluster"]], named["user"][context["user"]]
            where = urlsplit(cluster["server"]).hostname
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise ClusterError(f"kubeconfig {path} cannot be used: {error!r}") from error
        if not where:
            raise ClusterError(f"kubeconfig {path} cannot be used: its server has no host")
        return cls(
            _absolute(cluster, path), _absolute(user, path), context.get("namespace") or _NAMESPACE
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the API server."""
        server = urlsplit(self.cluster["server"])
        return str(server.hostname), server.port or 443

    def over(self, host: str, port: int, user: dict[str, Any]) -> dict[str, Any]:
        """A kubeconfig that leads there over a proxy on this machine; TLS is verified as before."""
        cluster = {
            "tls-server-name": self.address[0],
            **self.cluster,
            "server": f"https://{host}:{port}",
        }
        context = {"cluster": "soak", "user": "soak", "namespace": self.namespace}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "soak", "cluster": cluster}],
            "users": [{"name": "soak", "user": user}],
            "contexts": [{"name": "soak", "context": context}],
            "current-context": "soak",
        }


def _absolute(part: dict[str, Any], path: Path) -> dict[str, Any]:
    """Files beside the kubeconfig are found from anywhere."""
    files = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
    return {
        name: str(path.parent / value) if name in files else value for name, value in part.items()
    }
