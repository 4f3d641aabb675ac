"""How the access to a cluster is found, kept fresh and refused, with either generation of
the official client: token, files, plug-ins, the pod's own account, certificates, proxies.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import logging
import os
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from kubernetes.config import incluster_config

from kbroker import kube_credentials
from kbroker.errors import ClusterError
from kbroker.kube_client import ApiError
from kbroker.kube_credentials import read
from tests.integration.kube_world import (
    Authority,
    Server,
    connected,
    serving,
    settings,
    write_kubeconfig,
)


async def answer(request: web.BaseRequest) -> web.Response:
    """Says who the client's certificate says it is."""
    certificate = request.transport and request.transport.get_extra_info("peercert")
    name = certificate["subject"][0][0][1] if certificate else ""
    return web.json_response({"name": name})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(answer) as running:
        yield running


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "KUBECONFIG":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request looks whether the credentials have changed."""
    monkeypatch.setattr(kube_credentials, "LOOK_EVERY", 0.0)


def sent_token(server: Server) -> str | None:
    return server.requests[-1][2].get("authorization") if server.requests else None


def replace(path: Path, content: str) -> None:
    """Replace a file in one step, as kubelets and kubectl do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(content)
    fresh.replace(path)


# Tokens.


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ({"token": "abc"}, "Bearer abc"),
        ({"token": "abc\n"}, "Bearer abc"),
        ({"username": "u", "password": "p"}, "Basic " + base64.b64encode(b"u:p").decode()),
        ({}, None),
    ],
)
async def test_what_a_kubeconfig_says_of_a_user(
    server: Server, tmp_path: Path, user: dict[str, Any], header: str | None
) -> None:
    async with connected(write_kubeconfig(tmp_path / "k", server.url, user)) as kube:
        await kube.get_pod("default", "a")
    assert sent_token(server) == header


async def test_a_token_in_a_file_is_followed(
    server: Server, tmp_path: Path, always_looking: None
) -> None:
    (tmp_path / "token").write_text("first\n")
    # The path is relative to the kubeconfig.
    path = write_kubeconfig(tmp_path / "k", server.url, {"tokenFile": "token"})
    async with connected(path) as kube:
        await kube.get_pod("default", "a")
        assert sent_token(server) == "Bearer first"
        replace(tmp_path / "token", "second\n")
        await kube.get_pod("default", "a")
        assert sent_token(server) == "Bearer second"


async def test_a_new_kubeconfig_is_followed(
    server: Server, tmp_path: Path, always_looking: None
) -> None:
    path = write_kubeconfig(tmp_path / "k", server.url, {"token": "first"})
    async with connected(path) as kube:
        write_kubeconfig(tmp_path / "new", server.url, {"token": "second"}).replace(path)
        await kube.get_pod("default", "a")
    assert sent_token(server) == "Bearer second"


async def test_what_cannot_be_read_anew_is_kept(
    server: Server, tmp_path: Path, always_looking: None, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "token").write_text("first")
    path = write_kubeconfig(tmp_path / "k", server.url, {"tokenFile": "token"})
    async with connected(path) as kube:
        (tmp_path / "token").unlink()
        await kube.get_pod("default", "a")
        assert sent_token(server) == "Bearer first"
        assert "credentials not refreshed: no Kubernetes cluster from" in caplog.text
        with pytest.raises(ClusterError, match=f"No such file or directory: {tmp_path}/token"):
            await kube.reload_credentials()


async def test_refused_credentials_are_read_anew_on_demand(server: Server, tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "k", server.url, {"token": "first"})
    async with connected(path) as kube:
        write_kubeconfig(path, server.url, {"token": "second"})
        await kube.get_pod("default", "a")
        assert sent_token(server) == "Bearer first"  # files are looked at now and then only
        await kube.reload_credentials()
        await kube.get_pod("default", "a")
        assert sent_token(server) == "Bearer second"


# Credential plug-ins.

PLUGIN = """
import json, os, pathlib, sys, time
assert json.loads(os.environ["KUBERNETES_EXEC_INFO"])["kind"] == "ExecCredential"
status = json.loads(pathlib.Path(sys.argv[1]).read_text())
time.sleep(status.pop("takes", 0))
if not status:
    sys.exit("the plug-in's own words")
print(json.dumps({
    "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status,
}))
"""


class Plugin:
    """A credential plug-in that gives what stands in a file."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "plugin.py"
        self.script.write_text(PLUGIN)
        self.answer = folder / "answer"
        self.user = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": sys.executable,
                "args": [str(self.script), str(self.answer)],
                "interactiveMode": "Never",
            }
        }

    def gives(self, minutes: float | None = None, **status: Any) -> None:
        """What it gives from now on, and for how long that is good."""
        if minutes is not None:
            ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
            status["expirationTimestamp"] = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.answer.write_bytes(orjson.dumps(status))


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


@pytest.mark.parametrize(("minutes", "then"), [(4.0, "second"), (60.0, "first"), (None, "first")])
async def test_a_plugin_is_asked_again_before_its_token_ends(
    server: Server,
    tmp_path: Path,
    plugin: Plugin,
    always_looking: None,
    minutes: float | None,
    then: str,
) -> None:
    plugin.gives(minutes, token="first")
    async with connected(write_kubeconfig(tmp_path / "k", server.url, plugin.user)) as kube:
        plugin.gives(60, token="second")
        await kube.get_pod("default", "a")
        assert sent_token(server) == f"Bearer {then}"
        await kube.reload_credentials()
        await kube.get_pod("default", "a")
        assert sent_token(server) == "Bearer second"


async def test_a_plugin_that_gives_nothing_is_named(
    server: Server, tmp_path: Path, plugin: Plugin
) -> None:
    plugin.gives()
    path = write_kubeconfig(tmp_path / "k", server.url, plugin.user)
    with pytest.raises(ClusterError) as refused:
        async with connected(path):
            pass
    assert str(refused.value) == (
        f"no Kubernetes cluster from {path}: the credential plug-in {sys.executable!r} gave no "
        "credentials; run it by hand to see why: set kubernetes.kubeconfig (or --kubeconfig), "
        "or use --local"
    )


async def test_a_create_does_not_outlive_its_time_for_a_slow_plugin(
    server: Server, tmp_path: Path, plugin: Plugin, always_looking: None
) -> None:
    plugin.gives(4, token="first")
    async with connected(write_kubeconfig(tmp_path / "k", server.url, plugin.user)) as kube:
        plugin.gives(60, token="second", takes=1.0)
        with pytest.raises(ApiError) as late:
            await kube.create_pod("default", {}, timeout=0.2)
        assert (late.value.failure.reason, late.value.failure.sent) == ("timeout", False)
        assert not server.requests


async def test_requests_do_not_wait_for_another_ones_slow_plugin(
    server: Server, tmp_path: Path, plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_credentials, "LOOK_EVERY", 0.0)
    plugin.gives(4, token="first")
    async with connected(write_kubeconfig(tmp_path / "k", server.url, plugin.user)) as kube:
        monkeypatch.setattr(kube_credentials, "LOOK_EVERY", 60.0)
        plugin.gives(60, token="second", takes=1.0)
        first = asyncio.create_task(kube.get_pod("default", "a"))
        await asyncio.sleep(0)
        await kube.get_pod("default", "b")
        assert sent_token(server) == "Bearer first"
        assert not first.done()
        await first
        assert sent_token(server) == "Bearer second"


# The account of the pod that we run in.


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A service account's folder, as a kubelet mounts it; the server is 127.0.0.1:1."""
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text("account-token")
    (folder / "ca.crt").write_bytes(Authority().pem)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(folder / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(folder / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    return folder


async def test_the_account_of_a_pod(
    account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always_looking: None
) -> None:
    authority = Authority()
    replace(account / "ca.crt", authority.pem.decode())
    async with serving(answer, authority.server_context(tmp_path)) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", server.url.rpartition(":")[2])
        async with connected() as kube:
            assert kube.server == server.url
            await kube.get_pod("default", "a")
            assert sent_token(server) == "bearer account-token"
            replace(account / "token", "next-token")
            await kube.get_pod("default", "a")
            assert sent_token(server) == "bearer next-token"


def test_a_kubeconfig_goes_before_the_account(
    account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(settings()).origin == "the pod's service account"
    home = tmp_path / "home" / ".kube"
    home.mkdir(parents=True)
    write_kubeconfig(home / "config", "https://home")
    assert read(settings()).server == "https://home"
    several = [write_kubeconfig(tmp_path / name, f"https://{name}") for name in ("x", "y")]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, several)))
    assert read(settings()).server == "https://x"
    given = write_kubeconfig(tmp_path / "given", "https://given")
    assert read(settings(given)).server == "https://given"


def test_a_context_is_sought_in_a_kubeconfig_only(account: Path) -> None:
    with pytest.raises(ClusterError, match=r"from ~/\.kube/config: there is no such file"):
        read(settings(context="prod"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("token", "", "Token file exists but empty"),
        ("ca.crt", "", "Cert file exists but empty"),
        ("ca.crt", "x", "its certificate authority cannot be read"),
    ],
)
def test_a_broken_account(account: Path, name: str, content: str, said: str) -> None:
    (account / name).write_text(content)
    with pytest.raises(ClusterError, match="no Kubernetes cluster from the pod's") as refused:
        read(settings())
    assert said in str(refused.value)


# Certificates.


@pytest.mark.parametrize("inline", [True, False])
async def test_a_client_certificate_and_its_successor(
    tmp_path: Path, inline: bool, always_looking: None
) -> None:
    authority = Authority()

    def write_as(name: str) -> Path:
        certificate, key = authority.issue(name)
        if inline:
            user = {
                "client-certificate-data": base64.b64encode(certificate).decode(),
                "client-key-data": base64.b64encode(key).decode(),
            }
            fields = {"certificate_authority_data": authority.data}
        else:
            replace(tmp_path / "tls.crt", certificate.decode())
            replace(tmp_path / "tls.key", key.decode())
            replace(tmp_path / "ca.crt", authority.pem.decode())
            user = {"client-certificate": "tls.crt", "client-key": "tls.key"}
            fields = {"certificate_authority": "ca.crt"}
        return write_kubeconfig(tmp_path / "k", running.url, user, **fields)

    async with (
        serving(answer, authority.server_context(tmp_path)) as running,
        connected(write_as("alice")) as kube,
    ):
        assert orjson.loads(await kube.get_pod("default", "a")) == {"name": "alice"}
        await kube.get_pod("default", "a")
        await kube.reload_credentials()  # the same ones: connections are kept
        await kube.get_pod("default", "a")
        assert len(running.connections) == 1
        write_as("bob")
        assert orjson.loads(await kube.get_pod("default", "a")) == {"name": "bob"}


async def test_a_plugins_certificate(tmp_path: Path, plugin: Plugin) -> None:
    authority = Authority()

    def give(name: str) -> None:
        certificate, key = (part.decode() for part in authority.issue(name))
        plugin.gives(60, clientCertificateData=certificate, clientKeyData=key)

    give("alice")
    async with serving(answer, authority.server_context(tmp_path)) as server:
        path = write_kubeconfig(
            tmp_path / "k", server.url, plugin.user, certificate_authority_data=authority.data
        )
        async with connected(path) as kube:
            assert orjson.loads(await kube.get_pod("default", "a")) == {"name": "alice"}
            give("bob")
            await kube.reload_credentials()
            assert orjson.loads(await kube.get_pod("default", "a")) == {"name": "bob"}


def test_no_certificate_or_key_stays_in_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    authority = Authority()
    certificate, key = authority.issue("alice")
    user = {
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    path = write_kubeconfig(
        tmp_path / "k", "https://x", user, certificate_authority_data=authority.data
    )
    first, second = read(settings(path)), read(settings(path))
    assert list(folder.iterdir()) == []
    assert first.certificates == second.certificates


async def test_another_name_in_the_servers_certificate(tmp_path: Path) -> None:
    authority = Authority()
    context = authority.server_context(tmp_path, "kubernetes.example")
    async with serving(answer, context) as server:
        for name, reason in ((None, "tls"), ("other.example", "tls"), ("kubernetes.example", "")):
            path = write_kubeconfig(
                tmp_path / "k",
                server.url,
                certificate_authority_data=authority.data,
                tls_server_name=name,
            )
            async with connected(path) as kube:
                found = ""
                try:
                    await kube.get_pod("default", "a")
                except ApiError as error:
                    found = error.failure.reason
            assert found == reason


async def test_tls_is_not_verified_only_where_the_kubeconfig_says_so(tmp_path: Path) -> None:
    async with serving(answer, Authority().server_context(tmp_path)) as server:
        path = write_kubeconfig(tmp_path / "k", server.url, insecure_skip_tls_verify=True)
        async with connected(path) as kube:
            await kube.get_pod("default", "a")
    context = read(settings(write_kubeconfig(tmp_path / "k", "https://x"))).tls
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


# Proxies.


@pytest.mark.parametrize(
    ("url", "configured", "environment", "expected"),
    [
        ("https://api:6443", None, {}, None),
        ("https://api:6443", "http://p:1", {}, "http://p:1"),
        ("https://api:6443", "http://p:1", {"HTTPS_PROXY": "http://e:2"}, "http://p:1"),
        ("https://api:6443", None, {"HTTPS_PROXY": "http://e:2"}, "http://e:2"),
        ("https://api:6443", None, {"https_proxy": "e:2"}, "http://e:2"),
        ("https://api:6443", None, {"HTTP_PROXY": "http://e:2"}, None),
        ("http://api:6443", None, {"HTTP_PROXY": "http://e:2"}, "http://e:2"),
        ("https://api:6443", None, {"HTTPS_PROXY": "http://e:2", "NO_PROXY": "api"}, None),
        (
            "https://api.example:6443",
            None,
            {"HTTPS_PROXY": "http://e:2", "NO_PROXY": ".example"},
            None,
        ),
        ("https://127.0.0.1:6443", None, {"HTTPS_PROXY": "http://e:2"}, None),
        ("https://[::1]:6443", None, {"HTTPS_PROXY": "http://e:2"}, None),
        ("https://localhost:6443", None, {"HTTPS_PROXY": "http://e:2"}, None),
    ],
)
def test_which_proxy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    configured: str | None,
    environment: dict[str, str],
    expected: str | None,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    path = write_kubeconfig(tmp_path / "k", url, proxy_url=configured)
    assert read(settings(path)).proxy == expected


async def test_requests_go_through_the_proxy(server: Server, tmp_path: Path) -> None:
    proxy = server.url.replace("http://", "http://user:word@")
    path = write_kubeconfig(tmp_path / "k", "http://api.example:6443", proxy_url=proxy)
    async with connected(path) as kube:
        await kube.get_pod("default", "a")
    method, url, headers = server.requests[0]
    assert (method, url) == ("GET", "http://api.example:6443/api/v1/namespaces/default/pods/a")
    assert headers["proxy-authorization"].startswith("Basic ")


async def test_a_proxy_that_refuses_has_sent_nothing(tmp_path: Path) -> None:
    async def refuse(_: web.BaseRequest) -> web.Response:
        return web.Response(status=407)

    async with serving(refuse) as proxy:
        path = write_kubeconfig(tmp_path / "k", "https://api.example", proxy_url=proxy.url)
        async with connected(path) as kube:
            with pytest.raises(ApiError) as refused:
                await kube.create_pod("default", {})
    failure = refused.value.failure
    assert (failure.reason, failure.sent) == ("refused", False)
    assert "the proxy answers 407" in failure.message


# Mistakes.

SECRET = "hunter2-is-the-token"


def kubeconfig(**changes: Any) -> str:
    content: dict[str, Any] = {
        "current-context": "one",
        "clusters": [{"name": "c", "cluster": {"server": "https://x"}}],
        "users": [{"name": "u", "user": {"token": SECRET}}],
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u"}},
            {"name": "two", "context": {"cluster": "c", "user": "u"}},
        ],
        **changes,
    }
    return orjson.dumps(content).decode()


def cluster(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "c", "cluster": fields}]


def user(**fields: Any) -> list[dict[str, Any]]:
    fields = {key.replace("_", "-"): value for key, value in fields.items()}
    return [{"name": "u", "user": {"token": SECRET, **fields}}]


@pytest.mark.parametrize(
    ("content", "context", "said"),
    [
        (None, "", "there is no such file"),
        ("", "", "file is empty"),
        (f"a: [\n{SECRET}", "", "it is not YAML (line"),
        (f"- {SECRET}", "", "it is not a kubeconfig"),
        (SECRET, "", "it is not a kubeconfig"),
        (kubeconfig(), "prod", "it has no context 'prod'; it has: one, two"),
        (
            kubeconfig(**{"current-context": ""}),
            "",
            "it has no current context: set kubernetes.context to one of: one, two",
        ),
        (kubeconfig(contexts=[]), "", "it has no context 'one'; it has: none"),
        (kubeconfig(clusters=[]), "", "it has no cluster 'c'"),
        (kubeconfig(users=[]), "", "it has no user 'u'"),
        (kubeconfig(users=[{"name": "u", "token": SECRET}]), "", "its user 'u' is empty"),
        (kubeconfig(users=[{"token": SECRET}]), "", "it has no user 'u'"),
        (kubeconfig(users=[SECRET]), "", "it is not a kubeconfig"),
        (kubeconfig(clusters=cluster(server="x:6443")), "", "must be a URL that begins with"),
        (kubeconfig(clusters=cluster()), "", "must be a URL that begins with https://, not None"),
        (
            kubeconfig(clusters=cluster(server="https://x", **{"certificate-authority": "none"})),
            "",
            "File does not exist: ",
        ),
        (
            kubeconfig(
                clusters=cluster(server="https://x", **{"certificate-authority-data": "eHg="})
            ),
            "",
            "its certificate authority cannot be read: ",
        ),
        (
            kubeconfig(clusters=cluster(server="https://x", **{"certificate-authority-data": "x"})),
            "",
            "it is not a kubeconfig",
        ),
        (
            kubeconfig(users=user(client_certificate_data="eHg=", client_key_data="eHg=")),
            "",
            "its client certificate cannot be used: ",
        ),
        (
            kubeconfig(users=[{"name": "u", "user": {"tokenFile": "none"}}]),
            "",
            "No such file or directory: ",
        ),
        (  # the loader quotes the whole entry
            kubeconfig(users=user(auth_provider={"name": "oidc", "config": None})),
            "",
            "Expected key config in ",
        ),
        (
            kubeconfig(
                clusters=cluster(server="https://x", **{"proxy-url": f"socks5://u:{SECRET}@p"})
            ),
            "",
            "a proxy must be an http:// or https:// one, not socks5://",
        ),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, content: str | None, context: str, said: str
) -> None:
    path = tmp_path / "k"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ClusterError) as refused:
        read(settings(path, context=context))
    text = str(refused.value)
    assert said in text
    assert text.startswith(f"no Kubernetes cluster from {path}: ")
    assert text.endswith("set kubernetes.kubeconfig (or --kubeconfig), or use --local")
    assert "\n" not in text
    assert SECRET not in text


def test_a_kubeconfig_that_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=f"Is a directory: {tmp_path}"):
        read(settings(tmp_path))


def test_nothing_at_all() -> None:
    with pytest.raises(ClusterError, match=r"from ~/\.kube/config: there is no such file"):
        read(settings())


def test_the_log_of_a_refresh_shows_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "k"
    path.write_text(kubeconfig())
    access = read(settings(path))
    assert access.headers == {"authorization": f"Bearer {SECRET}"}
    assert SECRET not in repr(access)
    assert SECRET not in caplog.text
