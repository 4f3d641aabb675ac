"""The Kubernetes API, as far as kbroker uses it: few requests, made fast.

The official client supplies configuration, TLS and authentication (kubeconfig,
in-cluster account, exec plug-ins, token refresh); building its models costs
several times as much as a request. Requests go through `KubePool`, streams and
whatever has to pass a proxy through aiohttp.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import orjson

from kbroker.errors import ClusterError
from kbroker.kube_answer import ApiError, answering, refusal
from kbroker.kube_credentials import Credentials
from kbroker.kube_pool import KEEP_ALIVE, Headers, KubePool, within
from kbroker.naming import FINALIZER
from kbroker.pod import PodPage
from kbroker.retry import ApiFailure
from kbroker.settings import KubernetesSettings
from kbroker.watch_lines import watch_lines

__all__ = ["ApiError", "KubeClient"]

_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_AGENT = (("User-Agent", "kbroker"), ("Accept", "application/json"))


class KubeClient:
    """A pooled connection to one API server; for one event loop.

    Every request raises ApiError when it does not succeed.
    """

    def __init__(self, credentials: Credentials, settings: KubernetesSettings) -> None:
        self._credentials = credentials
        self._timeout = settings.request_timeout
        # What fails within the connection's part is known not to have been sent.
        self._pool = KubePool(credentials, settings.pool_size, self._timeout / 2)
        connector = aiohttp.TCPConnector(
            limit=settings.pool_size, keepalive_timeout=KEEP_ALIVE, ttl_dns_cache=60
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            # The whole is limited per request.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout / 2),
        )

    @classmethod
    async def connect(cls, settings: KubernetesSettings) -> KubeClient:
        """A client for the configured cluster; nothing is asked of it yet.

        Raises:
            ClusterError: there is no usable kubeconfig or account; says where and what to do.
        """
        return cls(await asyncio.to_thread(Credentials, settings), settings)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._credentials.server

    async def close(self) -> None:
        """Close the connections."""
        self._pool.close()
        await self._session.close()

    async def reload_credentials(self) -> None:
        """Read token and certificates anew: they were refused.

        Raises:
            ClusterError: they cannot be read.
        """
        await self._credentials.reload()

    # Pods.

    async def create_pod(
        self, namespace: str, manifest: dict[str, Any] | bytes, timeout: float | None = None
    ) -> bytes:
        """Create a pod from its manifest, or from that as JSON; the created object as JSON."""
        body = manifest if isinstance(manifest, bytes) else orjson.dumps(manifest)
        return await self._request("POST", _pods(namespace), body, timeout)

    async def get_pod(self, namespace: str, name: str) -> bytes:
        """A pod as JSON."""
        return await self._request("GET", _pods(namespace, name))

    async def delete_pod(
        self,
        namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: int | None = None,
        grace: int | None = None,
    ) -> None:
        """Delete exactly this pod.

        Args:
            namespace: the pod's namespace.
            name: its name.
            uid: precondition.
            resource_version: precondition, where a state was judged.
            grace: seconds until its containers are killed; None for its own setting.
        """
        preconditions = {"uid": uid}
        if resource_version is not None:
            preconditions["resourceVersion"] = str(resource_version)
        options: dict[str, Any] = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": preconditions,
        }
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        await self._request("DELETE", _pods(namespace, name), orjson.dumps(options))

    async def patch_pod(self, namespace: str, name: str, patch: dict[str, Any]) -> bytes:
        """Merge-patch a pod; the new object as JSON. uid and version in it are preconditions."""
        return await self._request(
            "PATCH", _pods(namespace, name), orjson.dumps(patch), content_type=_MERGE_PATCH
        )

    async def release_pod(
        self, namespace: str, name: str, *, uid: str, resource_version: int | None = None
    ) -> bytes:
        """Take kbroker's finalizer off exactly this pod; the new object as JSON."""
        metadata: dict[str, Any] = {"uid": uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}
        if resource_version is not None:
            metadata["resourceVersion"] = str(resource_version)
        return await self._request(
            "PATCH",
            _pods(namespace, name),
            orjson.dumps({"metadata": metadata}),
            content_type=_STRATEGIC_PATCH,
        )

    async def list_pods(
        self,
        namespace: str,
        selector: str,
        *,
        limit: int,
        continue_token: str | None = None,
    ) -> PodPage:
        """One page of the pods that a label selector matches, read consistently."""
        query: dict[str, str] = {"labelSelector": selector, "limit": str(limit)}
        if continue_token:
            query["continue"] = continue_token
        data = await self._request("GET", f"{_pods(namespace)}?{urlencode(query)}")
        try:
            return PodPage.decode(data)
        except ValueError as error:
            raise ApiError(ApiFailure(0, "decode", f"the list is not readable: {error}")) from error

    @asynccontextmanager
    async def watch_pods(
        self, namespace: str, selector: str, resource_version: int, timeout: float
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        """Watch from a resource version on, with bookmarks.

        Args:
            namespace: where.
            selector: label selector.
            resource_version: events after this one are given.
            timeout: seconds after which the server ends the watch.

        Yields:
            An iterator over lists of complete lines: what comes after a while without any is
            given at once, what follows soon afterwards together. It ends when the server
            closes the connection, and raises ApiError when it breaks.
        """
        query = {
            "watch": "1",
            "labelSelector": selector,
            "resourceVersion": str(resource_version),
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(timeout))),
        }
        async with self._stream(f"{_pods(namespace)}?{urlencode(query)}") as response:
            yield watch_lines(response)

    async def pod_log(
        self,
        namespace: str,
        name: str,
        *,
        container: str = "base",
        follow: bool = False,
        tail: int | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The log of one container, in pieces as they come.

        Args:
            namespace: the pod's namespace.
            name: its name.
            container: whose log.
            follow: wait for more until the container has ended.
            tail: only so many last lines; None for all.
            limit: of these only so many first bytes, more or less; None for all.
        """
        query = {"container": container}
        if follow:
            query["follow"] = "true"
        if tail is not None:
            query["tailLines"] = str(tail)
        if limit is not None:
            query["limitBytes"] = str(limit)
        path = f"{_pods(namespace, name)}/log?{urlencode(query)}"
        async with self._stream(path) as response:
            with answering(sent=True):
                async for piece in response.content.iter_any():
                    yield piece

    async def pod_events(self, namespace: str, name: str, uid: str) -> bytes:
        """The events about one pod: an EventList as JSON.

        See https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/.
        """
        fields = f"involvedObject.name={name}" + (f",involvedObject.uid={uid}" if uid else "")
        query = urlencode({"fieldSelector": fields})
        return await self._request("GET", f"{_path(namespace, 'events', '')}?{query}")

    # Secrets.

    async def create_secret(self, namespace: str, manifest: dict[str, Any]) -> None:
        """Create a Secret."""
        await self._request("POST", _secrets(namespace), orjson.dumps(manifest))

    async def get_secret(self, namespace: str, name: str) -> bytes:
        """A Secret as JSON."""
        return await self._request("GET", _secrets(namespace, name))

    async def replace_secret(self, namespace: str, name: str, manifest: dict[str, Any]) -> None:
        """Replace a Secret. uid and version in its metadata are preconditions."""
        await self._request("PUT", _secrets(namespace, name), orjson.dumps(manifest))

    # Access.

    async def check_namespace(self, namespace: str) -> None:
        """See that a namespace exists.

        Raises:
            ClusterError: it does not, or cannot be seen for want of credentials.
        """
        try:
            await self._request("GET", f"/api/v1/namespaces/{quote(namespace)}")
        except ApiError as error:
            if error.status == 404:
                raise ClusterError(
                    f"namespace {namespace!r} does not exist at {self.server}: "
                    f"kubectl create namespace {namespace}"
                ) from error
            if error.status != 403:  # seeing namespaces is not needed for anything else
                raise self._unusable(error) from error

    async def check_access(self, verb: str, resource: str, namespace: str) -> None:
        """See that these credentials may do something.

        Raises:
            ClusterError: they may not, or are refused altogether.
        """
        name, _, subresource = resource.partition("/")
        attributes = {"namespace": namespace, "verb": verb, "resource": name}
        if subresource:
            attributes["subresource"] = subresource
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        try:
            answer = orjson.loads(await self._request("POST", path, orjson.dumps(review)))
        except ApiError as error:
            raise self._unusable(error) from error
        if not answer.get("status", {}).get("allowed"):
            raise ClusterError(
                f"no permission to {verb} {resource} in namespace {namespace!r} at {self.server}: "
                f"grant it, then check with: kubectl auth can-i {verb} {resource} -n {namespace}"
            )

    def _unusable(self, error: ApiError) -> ClusterError:
        if error.status == 401:
            return ClusterError(
                f"{self.server} refuses the credentials of {self._credentials.origin}: renew them"
            )
        if error.status:
            return ClusterError(f"{self.server} answers {error.status}: {error}")
        return ClusterError(
            f"no Kubernetes API at {self.server} ({error}): "
            f"is the cluster up, and {self._credentials.origin} right?"
        )

    # Requests.

    async def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        timeout: float | None = None,
        *,
        content_type: str = "application/json",
    ) -> bytes:
        # Whatever it waits for: a create must not be sent after its time.
        ends = time.monotonic() + (self._timeout if timeout is None else timeout)
        with answering() as request:
            headers = await self._headers(ends)
            if body is not None:
                headers = (*headers, ("Content-Type", content_type))
            if self._credentials.proxy:
                async with within(ends):
                    response = await self._send(request, method, path, headers, body)
                    async with response:
                        return await response.read()
            answer = await self._pool.ask(request, method, path, headers, body or b"", ends)
        if answer.status >= 300:
            raise refusal(answer.status, answer.phrase, answer.headers, answer.body)
        return answer.body

    @asynccontextmanager
    async def _stream(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        # A stream may be silent for long, but not while it is opened.
        ends = time.monotonic() + self._timeout
        with answering() as request:
            headers = await self._headers(ends)
            async with within(ends):
                response = await self._send(request, "GET", path, headers)
        async with response:
            yield response

    async def _headers(self, ends: float) -> Headers:
        credentials = self._credentials
        if credentials.due:
            async with within(ends):
                await credentials.refresh()
        return (*_AGENT, *credentials.headers)

    async def _send(
        self,
        request: answering,
        method: str,
        path: str,
        headers: Headers,
        body: bytes | None = None,
    ) -> aiohttp.ClientResponse:
        """The response, its head read; ApiError unless it is a success."""
        credentials = self._credentials
        request.sent = True
        response = await self._session.request(
            method,
            credentials.server + path,
            data=body,
            headers=headers,
            # To follow one would turn a create into a GET of somebody's login page.
            allow_redirects=False,
            proxy=credentials.proxy,
            ssl=credentials.tls,
            server_hostname=credentials.server_name,
        )
        if response.status >= 300:
            async with response:
                phrase = response.reason or ""
                said = {name.lower(): value for name, value in response.headers.items()}
                raise refusal(response.status, phrase, said, await response.read())
        return response


def _pods(namespace: str, name: str = "") -> str:
    return _path(namespace, "pods", name)


def _secrets(namespace: str, name: str = "") -> str:
    return _path(namespace, "secrets", name)


def _path(namespace: str, resource: str, name: str) -> str:
    path = _collection(namespace, resource)
    return f"{path}/{quote(name)}" if name else path


@lru_cache(maxsize=64)
def _collection(namespace: str, resource: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace)}/{resource}"
