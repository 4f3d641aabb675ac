"""A cluster as one of its users sees it: through kbroker's own client, or by plain requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlencode

import aiohttp
import orjson
import pytest

from kbroker.kube_client import ApiError, KubeClient
from kbroker.kube_credentials import Credentials
from kbroker.settings import KubernetesSettings
from tests.conformance.event_loop import EventLoop

Object = dict[str, Any]
T = TypeVar("T")

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def poll(what: str, condition: Callable[[], T], seconds: float = 20.0) -> T:
    """Wait until the condition is true; its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.03)


def path(resource: str, namespace: str, name: str = "", **query: Any) -> str:
    """The path of a resource of the core group."""
    found = f"/api/v1/namespaces/{namespace}/{resource}" + (f"/{name}" if name else "")
    return found + ("?" + urlencode(query) if query else "")


class Answer:
    """A status and a body."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body

    @property
    def json(self) -> Object:
        """The body, read."""
        return orjson.loads(self.body)  # type: ignore[no-any-return]

    def expect(self, status: int) -> Object:
        """The body of an answer that is as it should be."""
        assert self.status == status, (self.status, self.body)
        return self.json


class Cluster:
    """One API server and one identity.

    Args:
        kubeconfig: path of a kubeconfig; several, as in $KUBECONFIG.
        loop: runs the requests.
    """

    def __init__(self, kubeconfig: str, loop: EventLoop) -> None:
        self.kubeconfig = kubeconfig
        self.loop = loop
        self.settings = KubernetesSettings(kubeconfig=kubeconfig, request_timeout=20.0)
        self.kube = loop.run(KubeClient.connect(self.settings))
        self._credentials = Credentials(self.settings)
        self._session = loop.run(_session())

    def close(self) -> None:
        """Close the connections."""
        self.loop.run(self.kube.close())
        self.loop.run(self._session.close())

    def do(self, step: Coroutine[Any, Any, T]) -> T:
        """The result of a request of `kube`."""
        return self.loop.run(step)

    def refused(self, step: Coroutine[Any, Any, Any], status: int, reason: str) -> ApiError:
        """The error of a request of `kube` that has to be refused so."""
        with pytest.raises(ApiError) as caught:
            self.loop.run(step)
        failure = caught.value.failure
        assert (failure.status, failure.reason) == (status, reason), failure
        return caught.value

    def call(
        self, method: str, where: str, body: Any = None, content_type: str = "application/json"
    ) -> Answer:
        """Any request."""
        return self.loop.run(self.request(method, where, body, content_type))

    def may(self, verb: str, resource: str, namespace: str) -> bool:
        """Whether the API server would let this identity do something with pods."""
        name, _, subresource = resource.partition("/")
        attributes = {"namespace": namespace, "verb": verb, "resource": name}
        if subresource:
            attributes["subresource"] = subresource
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self.call("POST", REVIEWS, review)
        return answer.status == 201 and bool(answer.json["status"]["allowed"])

    async def request(
        self, method: str, where: str, body: Any = None, content_type: str = "application/json"
    ) -> Answer:
        """The same on the event loop."""
        credentials = self._credentials
        if credentials.due:
            await credentials.refresh()
        headers = {"Accept": "application/json", **dict(credentials.headers)}
        if body is not None:
            headers["Content-Type"] = content_type
        async with self._session.request(
            method,
            credentials.server + where,
            data=None if body is None else orjson.dumps(body),
            headers=headers,
            proxy=credentials.proxy,
            ssl=credentials.tls,
            server_hostname=credentials.server_name,
        ) as response:
            return Answer(response.status, await response.read())


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
