"""One reading of the access to a cluster: address, certificates, token, proxy.

The official client's loaders find them. What they leave out stands here: whether the
files have changed since, which proxy to take, and errors of one line without the
secrets that the loaders' own texts may quote.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import yaml
from kubernetes import client, config
from kubernetes.config import incluster_config
from kubernetes.config.config_exception import ConfigException

from kbroker.errors import ClusterError


@dataclass(frozen=True, slots=True)
class Access:
    """What one reading gave.

    Attributes:
        configuration: the official client's.
        origin: where it was read, in words.
        server: the API server's URL, without a slash at the end.
        server_name: the name in its certificate, where it is not the URL's.
        proxy: URL of the proxy on the way.
        tls: how the server is verified and we prove who we are.
        certificates: digest of what `tls` was made of.
        headers: authenticate a request.
        files: what it was read from.
        stamp: of the files when they were read.
    """

    configuration: Any = field(repr=False)
    origin: str
    server: str
    server_name: str | None
    proxy: str | None = field(repr=False)
    tls: ssl.SSLContext | bool
    certificates: bytes
    headers: dict[str, str] = field(repr=False)
    files: tuple[Path, ...]
    stamp: tuple[Any, ...]

    def outdated(self) -> bool:
        """Whether a file has changed since it was read."""
        return self.stamp != stamp_of(self.files)

    def renewed(self) -> Access:
        """The same with a new token, if a plug-in's is about to end.

        Raises:
            ClusterError: the plug-in gave none.
        """
        with explained(self.origin):
            return replace(self, headers=_headers(self.configuration))


def account_exists() -> bool:
    """Whether this process runs in a pod with a service account."""
    return Path(incluster_config.SERVICE_TOKEN_FILENAME).exists()


def read_account() -> Access:
    """The access of the pod that this process runs in.

    Raises:
        ClusterError: it cannot be read.
    """
    files = (
        Path(incluster_config.SERVICE_TOKEN_FILENAME),
        Path(incluster_config.SERVICE_CERT_FILENAME),
    )
    configuration = client.Configuration()
    with explained("the pod's service account"):
        stamp = stamp_of(files)
        config.load_incluster_config(client_configuration=configuration)
        return access(configuration, "the pod's service account", None, files, stamp)


def access(
    configuration: Any,
    origin: str,
    proxy: str | None,
    files: tuple[Path, ...],
    stamp: tuple[Any, ...],
) -> Access:
    """What a loader has written into the official client's configuration.

    Args:
        configuration: the official client's; its files are read now.
        origin: where it was read, in words.
        proxy: the kubeconfig's proxy-url.
        files: what it was read from.
        stamp: of these files, taken before.

    Raises:
        ConfigException: a certificate or the proxy cannot be used.
    """
    server = str(configuration.host).rstrip("/")
    certificates = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
    return Access(
        configuration,
        origin,
        server,
        configuration.tls_server_name or None,
        _proxy(server, proxy),
        _tls(configuration) if server.startswith("https://") else True,
        _digest(certificates, bool(configuration.verify_ssl)),
        _headers(configuration),
        files,
        stamp,
    )


def _tls(configuration: Any) -> ssl.SSLContext:
    """TLS as the kubeconfig says: verified against its CA unless it says otherwise."""
    try:
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigException(f"its certificate authority cannot be read: {_why(error)}") from None
    try:
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigException(f"its client certificate cannot be used: {_why(error)}") from None
    # Python 3.13 demands extensions that many clusters' own authorities leave out.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.verify_ssl:
        # Only where the kubeconfig itself says insecure-skip-tls-verify.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _proxy(server: str, configured: str | None) -> str | None:
    """The kubeconfig's proxy, else the environment's: Go's rules, as kubectl has them.

    https://pkg.go.dev/net/http#ProxyFromEnvironment: never for this machine itself.
    """
    where = urlsplit(server)
    url = configured
    if not url and not _is_here(where.hostname or "") and not proxy_bypass(where.netloc):
        url = getproxies().get(where.scheme)
    if not url:
        return None
    scheme, separator, _ = url.partition("://")
    if not separator:
        return f"http://{url}"
    if scheme not in ("http", "https"):
        raise ConfigException(f"a proxy must be an http:// or https:// one, not {scheme}://")
    return url


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _headers(configuration: Any) -> dict[str, str]:
    # This call is also what makes the official client refresh a token.
    return {
        setting["key"]: setting["value"].strip()
        for setting in configuration.auth_settings().values()
        if setting["in"] == "header" and setting["value"]
    }


def _digest(files: Iterable[str | None], verified: bool) -> bytes:
    digest = hashlib.sha256(b"verified" if verified else b"")
    for file in files:
        digest.update(hashlib.sha256(Path(file).read_bytes() if file else b"").digest())
    return digest.digest()


def stamp_of(files: Iterable[Path]) -> tuple[Any, ...]:
    """A value that changes when a file does; a link counts as what it leads to."""
    stamps: list[Any] = []
    for file in files:
        try:
            found = file.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
    return tuple(stamps)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn whatever goes wrong while reading into one line.

    Raises:
        ClusterError: it did.
    """
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" (line {mark.line + 1})"
        raise _unreadable(where, f"it is not YAML{line}") from None
    except (ConfigException, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unreadable(where, _why(error)) from None


def _unreadable(where: str, why: str) -> ClusterError:
    return ClusterError(
        f"no Kubernetes cluster from {where}: {why}: set kubernetes.kubeconfig "
        "(or --kubeconfig), or use --local"
    )


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    if not isinstance(error, ConfigException):
        return f"it is not a kubeconfig ({type(error).__name__})"
    # The loader quotes whole entries, which may hold a token.
    words = re.sub(r"\{.*", "one of its entries", str(error), flags=re.DOTALL)
    return words.partition("\n")[0] or type(error).__name__
