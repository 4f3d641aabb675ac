"""Where the API server is and who we are there, as the official client reads it.

Its loaders know every way to say so (kubeconfig, the account of a pod, credential
plug-ins) and are the same in the generations 36 and 37.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from kbroker.errors import ClusterError
from kbroker.kube_access import Access, account_exists, read_account
from kbroker.kubeconfig import read_kubeconfig
from kbroker.settings import KubernetesSettings

log = logging.getLogger(__name__)

# Tokens and certificates in files are replaced long before they end, and plug-ins are
# asked for a new token minutes before the old one does.
LOOK_EVERY = 60.0

_DEFAULT_KUBECONFIG = "~/.kube/config"


class Credentials:
    """One cluster's address, TLS settings and authentication, kept fresh.

    Args:
        settings: which kubeconfig and context.

    Raises:
        ClusterError: they cannot be read; says where and what to do.
    """

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        self._access = read(settings)
        self._look_at = time.monotonic() + LOOK_EVERY
        self._reading = asyncio.Lock()

    @property
    def origin(self) -> str:
        """Where they come from."""
        return self._access.origin

    @property
    def server(self) -> str:
        """The API server's URL, without a slash at the end."""
        return self._access.server

    @property
    def server_name(self) -> str | None:
        """The name in the server's certificate, where it is not the URL's."""
        return self._access.server_name

    @property
    def proxy(self) -> str | None:
        """The URL of the proxy on the way to the server."""
        return self._access.proxy

    @property
    def tls(self) -> ssl.SSLContext | bool:
        """How the server is verified, and how we prove who we are."""
        return self._access.tls

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        """The headers that authenticate a request."""
        return self._access.headers.items()

    @property
    def due(self) -> bool:
        """Whether it is time to `refresh`."""
        return time.monotonic() >= self._look_at

    async def refresh(self) -> None:
        """See whether they were replaced."""
        self._look_at = time.monotonic() + LOOK_EVERY  # the others need not wait for it
        try:
            async with self._reading:
                self._adopt(await asyncio.to_thread(_current, self._settings, self._access))
        except ClusterError as error:
            # What there is may still be good; if not, the API server will say so.
            log.warning("credentials not refreshed: %s", error, extra={"action": "credentials"})

    async def reload(self) -> None:
        """Read everything anew.

        Raises:
            ClusterError: it cannot be read; says where and what to do.
        """
        async with self._reading:
            self._adopt(await asyncio.to_thread(read, self._settings))
            self._look_at = time.monotonic() + LOOK_EVERY

    def _adopt(self, fresh: Access) -> None:
        if fresh.certificates == self._access.certificates:
            # Another context would not be wrong, but cost every open connection.
            fresh = replace(fresh, tls=self._access.tls)
        self._access = fresh


def read(settings: KubernetesSettings) -> Access:
    """Read the configured credentials; a credential plug-in is run for it.

    As kubectl does, a kubeconfig goes before the account of the pod that we run in.

    Raises:
        ClusterError: there are none, or they cannot be used; says where and what to do.
    """
    paths = settings.kubeconfig or os.environ.get("KUBECONFIG") or _DEFAULT_KUBECONFIG
    chosen = settings.kubeconfig or settings.context or os.environ.get("KUBECONFIG")
    if not chosen and not Path(paths).expanduser().exists() and account_exists():
        return read_account()
    return read_kubeconfig(paths, settings.context)


def _current(settings: KubernetesSettings, access: Access) -> Access:
    """The credentials as they are now, without asking for more than may have changed."""
    return read(settings) if access.outdated() else access.renewed()
