"""A kubeconfig, read by the official client's loader for one of its contexts."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kubernetes import client
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

from kbroker.kube_access import Access, access, explained, stamp_of

# The loader remembers its temporary files for the whole process.
_loading = threading.Lock()

_FILES_OF_CLUSTER = ("certificate-authority",)
_FILES_OF_USER = ("tokenFile", "client-certificate", "client-key")


def read_kubeconfig(paths: str, context: str = "") -> Access:
    """The access that a kubeconfig describes.

    Args:
        paths: of one file, or of several as in $KUBECONFIG.
        context: name of one of its contexts; "" for the current one.

    Raises:
        ClusterError: there is none, or it cannot be used; says where and what to do.
    """
    configuration = client.Configuration()
    origin = f"kubeconfig {paths}"
    with explained(paths):
        merged = KubeConfigMerger(paths)
        if merged.config is None:
            raise ConfigException("there is no such file")
        entries = _Entries(merged.config, context)
        files = (*map(Path, merged.paths), *entries.files())
        stamp = stamp_of(files)
        # The loader writes certificates and keys given as data into files.
        with _loading, tempfile.TemporaryDirectory(prefix="kbroker-") as folder:
            loader = KubeConfigLoader(
                config_dict=merged.config,
                active_context=entries.context,
                config_base_path=None,
                temp_file_path=folder,
            )
            loader.load_and_set(configuration)
            entries.check(configuration)
            return access(configuration, origin, entries.proxy, files, stamp)


class _Entries:
    """The entries of a kubeconfig that one context names.

    Args:
        merged: all files.
        context: its name; "" for the current one.

    Raises:
        ConfigException: one of them is missing.
    """

    def __init__(self, merged: Any, context: str) -> None:
        self._merged = merged
        self.context = context or merged.value.get("current-context") or ""
        known = ", ".join(sorted(str(node.value.get("name")) for node in merged.value["contexts"]))
        if not self.context:
            raise ConfigException(
                f"it has no current context: set kubernetes.context to one of: {known}"
            )
        found = self._entry("context", self.context, f"; it has: {known or 'none'}")
        self._cluster = self._entry("cluster", found.get("cluster"))
        self._user = self._entry("user", found["user"]) if found.get("user") else {}
        server = self._cluster.get("server")
        if not str(server).startswith(("https://", "http://")):
            raise ConfigException(
                f"the server of cluster {found['cluster']!r} must be a URL that begins with "
                f"https://, not {server!r}"
            )

    @property
    def proxy(self) -> str | None:
        """The proxy-url of the cluster; generation 36 of the loader does not know it."""
        return self._cluster.get("proxy-url")

    def files(self) -> Iterator[Path]:
        """The files that the entries name."""
        for entry, keys in ((self._cluster, _FILES_OF_CLUSTER), (self._user, _FILES_OF_USER)):
            for key in keys:
                if entry.get(key):
                    yield Path(entry["_folder"], entry[key])

    def check(self, configuration: Any) -> None:
        """See that a plug-in has given something: the loader only logs that it did not.

        Raises:
            ConfigException: it has not.
        """
        plugin = self._user.get("exec")
        if plugin and not (configuration.api_key or configuration.cert_file):
            raise ConfigException(
                f"the credential plug-in {plugin.get('command')!r} gave no credentials; "
                "run it by hand to see why"
            )

    def _entry(self, kind: str, name: Any, hint: str = "") -> dict[str, Any]:
        for node in self._merged.value[f"{kind}s"]:
            if node.value.get("name") == name:
                content = node.value.get(kind)
                if not isinstance(content, dict):
                    raise ConfigException(f"its {kind} {name!r} is empty")
                return {**content, "_folder": os.path.dirname(os.path.abspath(node.path))}
        raise ConfigException(f"it has no {kind} {name!r}{hint}")
