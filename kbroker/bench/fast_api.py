"""The least that a client of the API server can be: requests over pooled connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from kbroker.bench.helper import BenchError
from kbroker.kube_config import KubeConfig
from kbroker.kube_credentials import Credentials
from kbroker.naming import FINALIZER, deployment_selector
from kbroker.settings import KubernetesSettings

JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
_SWEEPERS = 16
_RELEASE = {"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}}


class FastApi:
    """Requests about pods of one namespace, without retries; for one event loop.

    Every request raises BenchError when it does not succeed.

    Args:
        settings: which cluster and namespace.
        connections: how many at once.

    Raises:
        ClusterError: the kubeconfig cannot be used.
    """

    def __init__(self, settings: KubernetesSettings, connections: int) -> None:
        credentials = Credentials(settings)
        self.pods = f"{credentials.server}/api/v1/namespaces/{settings.namespace}/pods"
        self._settings = settings
        self._credentials = credentials
        self._connections = connections

    async def __aenter__(self) -> FastApi:
        self._headers = dict(self._credentials.headers)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._credentials.tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def create(self, body: bytes) -> bytes:
        """Create a pod."""
        return await self._send("POST", self.pods, body, JSON)

    async def set_status(self, name: str, status: dict[str, Any]) -> bytes:
        """Merge a pod's status with this one."""
        body = orjson.dumps({"status": status})
        return await self._send("PATCH", f"{self.pods}/{name}/status", body, MERGE)

    async def bind(self, name: str, node: str) -> None:
        """Give a pod to a node."""
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self._send("POST", f"{self.pods}/{name}/binding", orjson.dumps(binding))

    async def remove(self, name: str, uid: str) -> None:
        """Take kbroker's finalizer off and delete: the two requests of a launcher."""
        release = orjson.dumps({"metadata": {"uid": uid, **_RELEASE["metadata"]}})
        await self._send("PATCH", f"{self.pods}/{name}", release, STRATEGIC)
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": uid},
        }
        await self._send("DELETE", f"{self.pods}/{name}", orjson.dumps(options), JSON)

    async def all(self, selector: str) -> list[dict[str, Any]]:
        """The pods that a label selector matches."""
        found: list[dict[str, Any]] = []
        query = {"labelSelector": selector, "limit": "500"}
        while True:
            page = orjson.loads(await self._send("GET", f"{self.pods}?{urlencode(query)}"))
            found += page["items"]
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return found

    async def sweep(self, selector: str) -> int:
        """Remove the pods that a label selector matches; how many there were."""
        waiting = iter(found := await self.all(selector))

        async def work() -> None:
            for pod in waiting:
                await self.remove(pod["metadata"]["name"], pod["metadata"]["uid"])

        await asyncio.gather(*(work() for _ in range(self._connections)))
        return len(found)

    async def watch(self, selector: str) -> AsyncIterator[list[bytes]]:
        """Lines of a watch from now on, as they come together; an empty list once it is open."""
        query = urlencode({"labelSelector": selector, "limit": "1"})
        page = orjson.loads(await self._send("GET", f"{self.pods}?{query}"))
        version = page["metadata"]["resourceVersion"]
        query = urlencode({"watch": "1", "labelSelector": selector, "resourceVersion": version})
        rest = b""
        async with self._session.get(f"{self.pods}?{query}", headers=self._headers) as response:
            yield []
            async for piece in response.content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                yield lines

    async def _send(
        self, method: str, url: str, body: bytes | None = None, content: str = JSON
    ) -> bytes:
        headers = {**self._headers, "Content-Type": content}
        async with self._session.request(method, url, data=body, headers=headers) as response:
            answer = await response.read()
        if response.status >= 300:
            raise BenchError(f"{method} {url}: {response.status}: {answer[:300]!r}")
        return answer


async def count(config: KubeConfig, prefix: str) -> int:
    """How many pods a deployment has of tasks whose ids begin so."""
    async with FastApi(config.kubernetes, 1) as api:
        found = await api.all(deployment_selector(config.core.deployment))
    return sum(pod["metadata"]["labels"]["task_id"].startswith(prefix) for pod in found)


async def sweep(config: KubeConfig) -> int:
    """Remove all pods of a deployment; how many there were."""
    async with FastApi(config.kubernetes, _SWEEPERS) as api:
        return await api.sweep(deployment_selector(config.core.deployment))
