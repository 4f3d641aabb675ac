"""The Kubernetes client against the local cluster, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from kbroker.errors import ClusterError
from kbroker.kube_client import ApiError, KubeClient
from kbroker.local.cluster_process import LocalCluster
from kbroker.pod import Pod, WatchLine
from tests.integration.kube_world import Authority, connected, serving, write_kubeconfig

_numbers = itertools.count(1)
SELECTOR = "app=test"


def manifest(name: str, *command: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "test"}, **metadata},
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {"name": "base", "image": "busybox", "command": list(command) or ["true"]}
            ],
        },
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("cluster"), bookmark_interval=0.2) as running:
        yield running


@pytest.fixture
async def kube(cluster: LocalCluster) -> AsyncIterator[KubeClient]:
    async with connected(cluster.kubeconfig) as client:
        yield client
    cluster.admin.delete("/_local/faults")


@pytest.fixture
def namespace(cluster: LocalCluster) -> str:
    name = f"client-{next(_numbers)}"
    cluster.admin.post("/api/v1/namespaces", {"metadata": {"name": name}})
    return name


def kubeconfig_of(cluster: LocalCluster, path: Path, token: str) -> Path:
    content = orjson.loads(cluster.kubeconfig.read_bytes())
    content["users"][0]["user"] = {"token": token}
    path.write_bytes(orjson.dumps(content))
    return path


# The API as it should be.


async def test_the_life_of_a_pod(kube: KubeClient, namespace: str) -> None:
    made = Pod.decode(await kube.create_pod(namespace, manifest("a", "sleep", "60")))
    assert (made.name, made.namespace) == ("a", namespace)
    with pytest.raises(ApiError) as taken:
        await kube.create_pod(namespace, manifest("a"))
    assert (taken.value.status, taken.value.failure.reason) == (409, "AlreadyExists")
    assert taken.value.details == {"name": "a", "kind": "pods"}
    assert str(taken.value) == 'pods "a" already exists'

    patch = {"metadata": {"uid": made.uid, "annotations": {"x": "ä"}}}
    assert Pod.decode(await kube.patch_pod(namespace, "a", patch)).annotations == {"x": "ä"}
    with pytest.raises(ApiError) as another:
        await kube.patch_pod(namespace, "a", {"metadata": {"uid": "other"}})
    assert another.value.status == 422  # a field that cannot change
    stale = {"metadata": {"uid": "other", "resourceVersion": str(made.resource_version)}}
    with pytest.raises(ApiError) as changed:
        await kube.patch_pod(namespace, "a", stale)
    assert changed.value.status == 409

    for uid, version in (("other", None), (made.uid, 1)):
        with pytest.raises(ApiError) as refused:
            await kube.delete_pod(namespace, "a", uid=uid, resource_version=version)
        assert refused.value.status == 409
    pod = Pod.decode(await kube.get_pod(namespace, "a"))
    assert pod.uid == made.uid
    await kube.delete_pod(namespace, "a", uid=pod.uid, grace=0)
    with pytest.raises(ApiError) as gone:
        await kube.get_pod(namespace, "a")
    assert gone.value.status == 404


async def test_pages_of_a_list(kube: KubeClient, namespace: str) -> None:
    for name in "abcde":
        await kube.create_pod(namespace, manifest(name, "sleep", "60"))
    await kube.create_pod(namespace, manifest("z", labels={"app": "other"}))
    names: list[list[str]] = []
    token: str | None = None
    versions = set()
    while True:
        page = await kube.list_pods(namespace, SELECTOR, limit=2, continue_token=token)
        names.append([pod.name for pod in page.items])
        versions.add(page.version)
        token = page.metadata.continue_token
        if not token:
            break
    assert names == [["a", "b"], ["c", "d"], ["e"]]
    assert len(versions) == 1  # one consistent picture


async def test_a_watch_gives_whole_lines_of_any_length(kube: KubeClient, namespace: str) -> None:
    version = (await kube.list_pods(namespace, SELECTOR, limit=1)).version
    big = manifest("big", "sleep", "60")
    big["spec"]["containers"][0]["env"] = [{"name": "A", "value": "x" * 1_400_000}]
    kinds: list[str] = []
    sizes: list[int] = []
    async with kube.watch_pods(namespace, SELECTOR, version, 60) as batches:
        await kube.create_pod(namespace, big)
        await kube.create_pod(namespace, manifest("small", "sleep", "60"))
        async with asyncio.timeout(20):
            async for lines in batches:
                events = [WatchLine.decode(line) for line in lines]
                kinds += [event.type for event in events]
                pods = [Pod.decode(bytes(event.object)) for event in events]
                sizes += [
                    len(line)
                    for line, pod in zip(lines, pods, strict=True)
                    if pod.name == "big" and pod.metadata.uid
                ]
                if "BOOKMARK" in kinds and kinds.count("ADDED") == 2:
                    break
    assert kinds[0] == "ADDED"
    assert min(sizes) > 1_400_000


async def test_the_server_ends_a_watch_in_time(kube: KubeClient, namespace: str) -> None:
    version = (await kube.list_pods(namespace, SELECTOR, limit=1)).version
    began = time.monotonic()
    async with kube.watch_pods(namespace, SELECTOR, version, 1) as batches:
        kinds = {WatchLine.decode(line).type async for lines in batches for line in lines}
    assert kinds <= {"BOOKMARK"}
    assert 0.5 < time.monotonic() - began < 5


async def test_a_log(kube: KubeClient, namespace: str) -> None:
    await kube.create_pod(namespace, manifest("a", "sh", "-c", "for i in 1 2 3; do echo $i; done"))
    deadline = time.monotonic() + 20
    while Pod.decode(await kube.get_pod(namespace, "a")).phase != "Succeeded":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert b"".join([piece async for piece in kube.pod_log(namespace, "a")]) == b"1\n2\n3\n"
    tail = kube.pod_log(namespace, "a", follow=True, tail=1)
    assert b"".join([piece async for piece in tail]) == b"3\n"
    with pytest.raises(ApiError) as missing:
        async for _ in kube.pod_log(namespace, "none"):
            pass
    assert missing.value.status == 404


# Who may do what.


async def test_a_permission_that_is_missing_is_named(
    cluster: LocalCluster, namespace: str, tmp_path: Path
) -> None:
    denied = {"user": "limited", "deny": [{"verb": "watch", "resource": "pods"}]}
    token = cluster.admin.post("/_local/tokens", denied)["token"]
    async with connected(kubeconfig_of(cluster, tmp_path / "k", token)) as kube:
        await kube.check_access("list", "pods", namespace)
        await kube.check_access("get", "pods/log", namespace)
        with pytest.raises(ClusterError) as refused:
            await kube.check_access("watch", "pods", namespace)
    assert str(refused.value) == (
        f"no permission to watch pods in namespace '{namespace}' at {cluster.url}: "
        f"grant it, then check with: kubectl auth can-i watch pods -n {namespace}"
    )


async def test_a_namespace_that_is_not_there(kube: KubeClient, namespace: str) -> None:
    await kube.check_namespace(namespace)
    with pytest.raises(ClusterError, match="namespace 'none' does not exist at https://") as said:
        await kube.check_namespace("none")
    assert "kubectl create namespace none" in str(said.value)


async def test_credentials_that_are_refused(cluster: LocalCluster, tmp_path: Path) -> None:
    path = kubeconfig_of(cluster, tmp_path / "k", "wrong")
    async with connected(path) as kube:
        with pytest.raises(ApiError) as refused:
            await kube.get_pod("default", "a")
        assert (refused.value.status, refused.value.failure.reason) == (401, "Unauthorized")
        for check in (
            kube.check_namespace("default"),
            kube.check_access("get", "pods", "default"),
        ):
            with pytest.raises(ClusterError) as said:
                await check
            assert str(said.value) == (
                f"{cluster.url} refuses the credentials of kubeconfig {path}: renew them"
            )


async def test_nothing_shows_a_token(
    cluster: LocalCluster, kube: KubeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await kube.check_namespace("default")
    said: list[str] = []
    async with connected(kubeconfig_of(cluster, tmp_path / "k", "secret-token")) as other:
        for request in (other.get_pod("default", "a"), other.check_namespace("default")):
            with pytest.raises((ApiError, ClusterError)) as refused:
                await request
            said.append(f"{refused.value!r} {refused.value.__dict__}")
    text = caplog.text + "".join(said)
    assert cluster.token not in text
    assert "secret-token" not in text


# Misbehaviour.


@pytest.mark.parametrize(
    ("action", "status", "retry_after", "reason"),
    [
        ({"status": 429, "retry_after": 7}, 429, 7.0, "TooManyRequests"),
        ({"status": 503, "retry_after": 2}, 503, 2.0, "ServiceUnavailable"),
        ({"status": 500, "message": "etcdserver: leader changed"}, 500, None, "InternalError"),
        ({"reset": "before"}, 0, None, "reset"),
        ({"reset": "after"}, 0, None, "reset"),
    ],
    ids=str,
)
async def test_a_failed_create_is_sent_once(
    cluster: LocalCluster,
    kube: KubeClient,
    namespace: str,
    action: dict[str, Any],
    status: int,
    retry_after: float | None,
    reason: str,
) -> None:
    match = {"verb": "create", "resource": "pods", "namespace": namespace}
    # The second create would go through: only one may come.
    cluster.admin.post("/_local/faults", {"match": match, "action": action, "times": 1})
    with pytest.raises(ApiError) as caught:
        await kube.create_pod(namespace, manifest("a", "sleep", "60"))
    failure = caught.value.failure
    assert (failure.status, failure.retry_after, failure.reason) == (status, retry_after, reason)
    assert failure.sent
    assert failure.message
    made = (await kube.list_pods(namespace, SELECTOR, limit=5)).items
    assert len(made) == (action == {"reset": "after"})


async def test_an_answer_that_does_not_come_in_time(
    cluster: LocalCluster, kube: KubeClient, namespace: str
) -> None:
    match = {"verb": "create", "resource": "pods", "namespace": namespace}
    cluster.admin.post(
        "/_local/faults", {"match": match, "action": {"latency_ms": 3000}, "times": 1}
    )
    began = time.monotonic()
    with pytest.raises(ApiError) as caught:
        await kube.create_pod(namespace, manifest("a"), timeout=0.2)
    assert time.monotonic() - began < 2
    assert (caught.value.failure.reason, caught.value.failure.sent) == ("timeout", True)


async def refuses(kube: KubeClient) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await kube.create_pod("default", manifest("a"))
    return caught.value


ANSWERS: list[tuple[int, dict[str, str], bytes, str, str, float | None]] = [
    (
        502,
        {},
        b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>",
        "Bad Gateway",
        "<html> <head><title>502 Bad Gateway</title></head> </html>",
        None,
    ),
    (500, {}, b"", "Internal Server Error", "HTTP 500 Internal Server Error", None),
    (503, {"Retry-After": "3"}, b"later", "Service Unavailable", "later", 3.0),
    (
        503,
        {"Retry-After": "Mon, 23 Nov 2026 06:00:00 GMT"},
        b"later",
        "Service Unavailable",
        "later",
        None,
    ),
    (
        429,
        {},
        b'{"message": "busy", "reason": "TooManyRequests", "details": {"retryAfterSeconds": 4}}',
        "TooManyRequests",
        "busy",
        4.0,
    ),
    (
        429,
        {},
        b'{"message": "busy", "reason": "TooManyRequests", "details": {"retryAfterSeconds": null}}',
        "TooManyRequests",
        "busy",
        None,
    ),
    (400, {}, b"[" + b"x" * 5000, "Bad Request", "[" + "x" * 199, None),
    (403, {}, b"\xff\xfe", "Forbidden", "\ufffd\ufffd", None),
]


@pytest.mark.parametrize(("status", "headers", "body", "reason", "message", "retry_after"), ANSWERS)
async def test_an_answer_that_is_not_the_api_servers(
    tmp_path: Path,
    status: int,
    headers: dict[str, str],
    body: bytes,
    reason: str,
    message: str,
    retry_after: float | None,
) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, headers=headers, body=body)

    async with (
        serving(answer) as server,
        connected(write_kubeconfig(tmp_path / "k", server.url)) as kube,
    ):
        failure = (await refuses(kube)).failure
    assert (failure.status, failure.reason, failure.message, failure.retry_after) == (
        status,
        reason,
        message,
        retry_after,
    )


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        raise web.HTTPFound("/login")

    async with (
        serving(answer) as server,
        connected(write_kubeconfig(tmp_path / "k", server.url)) as kube,
    ):
        assert (await refuses(kube)).status == 302
        assert [method for method, _, _ in server.requests] == ["POST"]


async def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=b"<html>")

    async with (
        serving(answer) as server,
        connected(write_kubeconfig(tmp_path / "k", server.url)) as kube,
    ):
        with pytest.raises(ApiError, match="the list is not readable"):
            await kube.list_pods("default", SELECTOR, limit=1)


async def test_a_stream_that_breaks(tmp_path: Path) -> None:
    read = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type": "ADD')
        await response.write(b'ED"}\n{"half')
        await read.wait()
        assert request.transport is not None
        request.transport.abort()
        return response

    seen: list[bytes] = []

    async def watch(kube: KubeClient) -> None:
        async with kube.watch_pods("default", SELECTOR, 1, 60) as batches:
            async for lines in batches:
                seen.extend(lines)
                read.set()

    async def follow(kube: KubeClient) -> None:
        async for _ in kube.pod_log("default", "a", follow=True):
            pass

    async with (
        serving(answer) as server,
        connected(write_kubeconfig(tmp_path / "k", server.url)) as kube,
    ):
        for stream in (watch, follow):
            with pytest.raises(ApiError) as broken:
                await stream(kube)
            assert (broken.value.status, broken.value.failure.reason) == (0, "reset")
    assert seen == [b'{"type": "ADDED"}']


async def test_what_follows_soon_in_a_watch_is_given_together(tmp_path: Path) -> None:
    read = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first\n")
        await read.wait()
        for number in range(20):
            await response.write(b"%d\n" % number)
            await asyncio.sleep(0)
        return response

    async with (
        serving(answer) as server,
        connected(write_kubeconfig(tmp_path / "k", server.url)) as kube,
        kube.watch_pods("default", SELECTOR, 1, 60) as batches,
    ):
        assert await anext(batches) == [b"first"]
        read.set()
        rest = [lines async for lines in batches]
    assert [line for lines in rest for line in lines] == [b"%d" % number for number in range(20)]
    assert len(rest) < 10


async def test_a_stream_that_never_opens(tmp_path: Path) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with (
        serving(answer) as server,
        connected(write_kubeconfig(tmp_path / "k", server.url), request_timeout=0.2) as kube,
    ):
        with pytest.raises(ApiError) as caught:
            async with kube.watch_pods("default", SELECTOR, 1, 60):
                pass
    assert caught.value.failure.reason == "timeout"


async def test_the_pool_is_bounded_and_its_connections_are_used_again(tmp_path: Path) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.01)
        return web.json_response({}, status=201)

    async with (
        serving(answer) as server,
        connected(write_kubeconfig(tmp_path / "k", server.url), pool_size=3) as kube,
    ):
        await asyncio.gather(*(kube.create_pod("default", manifest("a")) for _ in range(30)))
        await kube.get_pod("default", "a")
        assert len(server.requests) == 31
        assert len(server.connections) == 3


# Nobody there: it is certain that nothing was sent.


async def test_no_server(tmp_path: Path, unused_port: int) -> None:
    path = write_kubeconfig(tmp_path / "k", f"https://127.0.0.1:{unused_port}")
    async with connected(path) as kube:
        failure = (await refuses(kube)).failure
        assert (failure.reason, failure.sent) == ("refused", False)
        assert f"cannot connect to 127.0.0.1:{unused_port}" in failure.message
        with pytest.raises(ClusterError) as said:
            await kube.check_namespace("default")
    assert f"no Kubernetes API at https://127.0.0.1:{unused_port} (cannot connect" in str(
        said.value
    )
    assert "object at" not in str(said.value)


async def test_an_unknown_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    async with connected(write_kubeconfig(tmp_path / "k", "https://api.invalid")) as kube:
        failure = (await refuses(kube)).failure
    assert (failure.reason, failure.sent, failure.message) == (
        "dns",
        False,
        "unknown host api.invalid",
    )


async def test_a_server_that_cannot_be_trusted(tmp_path: Path) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.json_response({})

    context = Authority().server_context(tmp_path)
    path = tmp_path / "k"
    async with serving(answer, context) as server:
        for authority in (Authority().data, None):
            write_kubeconfig(path, server.url, certificate_authority_data=authority)
            async with connected(path) as kube:
                failure = (await refuses(kube)).failure
            assert (failure.reason, failure.sent) == ("tls", False)
            assert "cannot be trusted" in failure.message
        assert not server.requests


async def test_a_server_without_tls(tmp_path: Path) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.json_response({})

    async with serving(answer) as server:
        url = server.url.replace("http://", "https://")
        async with connected(write_kubeconfig(tmp_path / "k", url)) as kube:
            failure = (await refuses(kube)).failure
    assert (failure.reason, failure.sent) == ("tls", False)


async def test_a_server_that_does_not_shake_hands(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        path = write_kubeconfig(tmp_path / "k", f"https://127.0.0.1:{listening.getsockname()[1]}")
        async with connected(path, request_timeout=0.4) as kube:
            failure = (await refuses(kube)).failure
    assert (failure.reason, failure.sent) == ("timeout", False)
