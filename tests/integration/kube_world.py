"""Kubeconfigs of all kinds, and servers that are no Kubernetes at all."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kbroker.kube_client import KubeClient
from kbroker.settings import KubernetesSettings

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def write_kubeconfig(
    path: Path, server: str, user: dict[str, Any] | None = None, **cluster: Any
) -> Path:
    """A kubeconfig with one context; None leaves a field of the cluster out."""
    entry = {"server": server, **{k.replace("_", "-"): v for k, v in cluster.items()}}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "clusters": [{"name": "c", "cluster": {k: v for k, v in entry.items() if v is not None}}],
        "users": [{"name": "u", "user": {} if user is None else user}],
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_bytes(orjson.dumps(content))
    return path


def settings(kubeconfig: Path | str = "", **values: Any) -> KubernetesSettings:
    """Settings for one kubeconfig, impatient."""
    return KubernetesSettings(**{"kubeconfig": str(kubeconfig), "request_timeout": 5.0, **values})


@asynccontextmanager
async def connected(kubeconfig: Path | str = "", **values: Any) -> AsyncIterator[KubeClient]:
    """A client, closed afterwards."""
    client = await KubeClient.connect(settings(kubeconfig, **values))
    try:
        yield client
    finally:
        await client.close()


@dataclass
class Server:
    """A server in this process.

    Attributes:
        url: where it listens.
        requests: what it was asked: method, URL and headers, their names in lower case.
        connections: how many were made to it.
    """

    url: str = ""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)


@asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server that answers everything with `handler`."""
    server = Server()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        server.requests.append((request.method, str(request.url), headers))
        server.connections.add(id(request.transport))
        return await handler(request)

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    server.url = f"http{'s' if context else ''}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


class Authority:
    """A certificate authority, and certificates that it signed."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority")
        self.certificate = self._signed(self._name, self._key, ca=True)

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def data(self) -> str:
        """Its certificate as a kubeconfig has it."""
        return base64.b64encode(self.pem).decode()

    def issue(self, name: str, host: str = "127.0.0.1") -> tuple[bytes, bytes]:
        """A certificate and its key (PEM), for a server at `host` or a client called `name`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(_name(name), key, host=host)
        return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def server_context(self, folder: Path, host: str = "127.0.0.1") -> ssl.SSLContext:
        """TLS for a server at `host` that asks clients for certificates of ours."""
        chain = folder / f"{host}.pem"
        chain.write_bytes(b"".join(self.issue("server", host)))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=self.pem.decode())
        context.load_cert_chain(chain)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        host: str | None = None,
        ca: bool = False,
    ) -> x509.Certificate:
        # As plain as the authorities of many clusters: no key identifiers.
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if host is not None:
            try:
                name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
            except ValueError:
                name = x509.DNSName(host)
            builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
