"""A way to the API server on which the suite stands: it answers itself, or holds requests up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from kbroker.kube_credentials import Credentials
from tests.conformance.cluster import Answer, Cluster
from tests.integration.kube_world import write_kubeconfig

Intercept = Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]]
# Of one connection, not of the request.
_HOP = {"host", "connection", "content-length", "transfer-encoding", "authorization"}


class Proxy:
    """Forwards everything as one identity, but for what `intercept` answers; `with` ends it.

    Args:
        cluster: the identity.
        folder: for the kubeconfig.

    Attributes:
        intercept: is asked first; None to forward.
        kubeconfig: path of a kubeconfig that leads here.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.intercept: Intercept = _forward_all
        self.kubeconfig = ""
        self._cluster = cluster
        self._folder = folder
        self._credentials = Credentials(cluster.settings)

    def __enter__(self) -> Proxy:
        self._cluster.loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.loop.run(self._stop())

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.kubeconfig = str(write_kubeconfig(self._folder / "proxy.kubeconfig", url))

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self.intercept(request) or await self.forward(request)

    async def forward(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass a request on, and its answer back as it comes."""
        credentials = self._credentials
        if credentials.due:
            await credentials.refresh()
        kept = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        async with self._session.request(
            request.method,
            URL(credentials.server + request.raw_path, encoded=True),
            data=await request.read() or None,
            headers={**kept, **dict(credentials.headers)},
            proxy=credentials.proxy,
            ssl=credentials.tls,
            server_hostname=credentials.server_name,
        ) as answer:
            headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


class HeldCreate:
    """Holds the first create of a pod up, as a network may; those after it pass.

    Args:
        proxy: on the way.
        cluster: where it goes in the end.

    Attributes:
        held: whether one is held up.
        answer: what the API server said to it in the end.
    """

    def __init__(self, proxy: Proxy, cluster: Cluster) -> None:
        self.held = False
        self.answer: Answer | None = None
        self._cluster = cluster
        self._released = asyncio.Event()
        proxy.intercept = self._hold

    def release(self) -> None:
        """Let it go on its way."""

        async def go() -> None:
            self._released.set()

        self._cluster.do(go())

    async def _hold(self, request: web.BaseRequest) -> web.StreamResponse | None:
        if self.held or request.method != "POST" or not request.path.endswith("/pods"):
            return None
        self.held = True
        pod = orjson.loads(await request.read())
        await self._released.wait()
        self.answer = await self._cluster.request("POST", request.raw_path, pod)
        return web.Response(status=self.answer.status, body=self.answer.body)


async def _forward_all(_request: web.BaseRequest) -> web.StreamResponse | None:
    return None
