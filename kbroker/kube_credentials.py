"""Where the API server is and who we are there, as the official client reads it."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from kbroker.errors import ClusterError
from kbroker.settings import KubernetesSettings

# Tokens of projected accounts and exec plug-ins change; reading them anew is cheap.
_REFRESH_AFTER = 60.0


class Credentials:
    """One cluster's address, TLS settings and authentication.

    Args:
        settings: which kubeconfig and context.
    """

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        self._read_at = 0.0
        self._headers: dict[str, str] = {}
        self._reading = asyncio.Lock()
        self.origin = ""
        self.reload()

    @property
    def server(self) -> str:
        """The API server's URL, without a slash at the end."""
        return str(self._configuration.host).rstrip("/")

    @property
    def proxy(self) -> str | None:
        """The proxy's URL that the kubeconfig names."""
        return self._configuration.proxy or None

    def reload(self) -> None:
        """Read everything anew.

        Raises:
            ClusterError: it cannot be read; says where and what to do.
        """
        self._configuration, self.origin = _load(self._settings)
        self._read_at = 0.0

    async def headers(self) -> dict[str, str]:
        """The headers that authenticate a request."""
        async with self._reading:  # the first requests come together, and all need them
            if not self._read_at or time.monotonic() - self._read_at > _REFRESH_AFTER:
                # An exec plug-in may run for this.
                self._headers = await asyncio.to_thread(_authenticate, self._configuration)
                self._read_at = time.monotonic()
            return self._headers

    def ssl_context(self) -> ssl.SSLContext | bool:
        """TLS as the kubeconfig says: verified against its CA unless it says otherwise.

        Raises:
            ClusterError: a certificate cannot be read.
        """
        settings = self._configuration
        if self.server.startswith("http://"):
            return True
        try:
            context = ssl.create_default_context(cafile=settings.ssl_ca_cert or None)
            if settings.cert_file:
                context.load_cert_chain(settings.cert_file, settings.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ClusterError(f"{self.origin}: its certificates cannot be used: {error}") from None
        if not settings.verify_ssl:
            # Only where the kubeconfig itself says insecure-skip-tls-verify.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def load_credentials(settings: KubernetesSettings) -> Credentials:
    """Read the configured credentials.

    Raises:
        ClusterError: there are none, or they cannot be used; says where and what to do.
    """
    return Credentials(settings)


def _load(settings: KubernetesSettings) -> tuple[Any, str]:
    configuration = client.Configuration()
    configuration.retries = False
    path = settings.kubeconfig
    try:
        if not path and _in_cluster():
            config.load_incluster_config(client_configuration=configuration)
            return configuration, "the pod's service account"
        config.load_kube_config(
            config_file=path or None,
            context=settings.context or None,
            client_configuration=configuration,
            persist_config=False,
        )
    except (ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        where = path or "$KUBECONFIG or ~/.kube/config"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ClusterError(
            f"no Kubernetes cluster from {where}: {reason}: set kubernetes.kubeconfig "
            "(or --kubeconfig), or use --local"
        ) from None
    return configuration, f"kubeconfig {path or 'from $KUBECONFIG or ~/.kube/config'}"


def _in_cluster() -> bool:
    return Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()


def _authenticate(configuration: Any) -> dict[str, str]:
    headers: dict[str, str] = {}
    for setting in configuration.auth_settings().values():
        if setting["in"] == "header" and setting["value"]:
            headers[setting["key"]] = setting["value"]
    return headers
