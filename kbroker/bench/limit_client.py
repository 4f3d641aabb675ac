"""What a minimal client reaches, one process of it: `python -m kbroker.bench.limit_client`.

It obeys: `prepare` pods; `create` them as fast as it can; `live`: create them, watch them end and
delete them; `sweep` all pods of its deployment.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson
import uvloop

from kbroker.bench import tasks
from kbroker.bench.commands import Command, serve
from kbroker.bench.fast_api import FastApi
from kbroker.kube_config import KubeConfig
from kbroker.naming import deployment_selector

_AT_ONCE = 32


class LimitClient:
    """A loop around requests, and nothing else.

    Args:
        config: which cluster; `core.deployment` is this process's own.
        api: the API server.
    """

    def __init__(self, config: KubeConfig, api: FastApi) -> None:
        self._config = config
        self._api = api
        self._bodies: list[bytes] = []

    async def obey(self, command: Command) -> Any:
        """Obey one command."""
        match command["do"]:
            case "prepare":
                numbers = range(command["first"], command["end"])
                self._bodies = tasks.bodies(self._config, command["group"], numbers)
                return {"bytes": sum(map(len, self._bodies))}
            case "create":
                return await self._create(command["at"])
            case "live":
                return await self._live(command["at"])
            case "sweep":
                return {"removed": await self._api.sweep(self._selector)}
        raise ValueError(command["do"])

    async def _create(self, at: float) -> dict[str, Any]:
        done: list[float] = []

        async def create(body: bytes) -> None:
            await self._api.create(body)
            done.append(time.monotonic())

        await asyncio.sleep(at - time.monotonic())
        await _each(self._bodies, create)
        return {"done": done}

    async def _live(self, at: float) -> dict[str, Any]:
        life = _Lives(self._api, self._selector, self._config.kubernetes.create_window)
        return await life.run(self._bodies, at)

    @property
    def _selector(self) -> str:
        return deployment_selector(self._config.core.deployment)


class _Lives:
    """Pods from their creation to their end: the calls of kbroker, made by the shortest way.

    Args:
        api: the API server.
        selector: of the pods.
        window: seconds for which each pod is kept after it was asked for.
    """

    def __init__(self, api: FastApi, selector: str, window: float) -> None:
        self._api = api
        self._selector = selector
        self._window = window
        self._kept_until: dict[str, float] = {}
        self._ended: list[tuple[float, str, str]] = []  # a heap: when it may go, name, uid
        self._gone: list[float] = []

    async def run(self, bodies: list[bytes], at: float) -> dict[str, Any]:
        opened = asyncio.Event()
        watching = asyncio.create_task(self._watch(len(bodies), opened))
        await opened.wait()
        await asyncio.sleep(at - time.monotonic())
        removing = asyncio.create_task(self._remove(len(bodies)))
        await _each(bodies, self._create)
        await asyncio.gather(watching, removing)
        return {"done": self._gone}

    async def _create(self, body: bytes) -> None:
        name = orjson.loads(body)["metadata"]["name"]
        self._kept_until[name] = time.monotonic() + self._window
        await self._api.create(body)

    async def _watch(self, count: int, opened: asyncio.Event) -> None:
        async for lines in self._api.watch(self._selector):
            opened.set()
            for line in lines:
                event = orjson.loads(line)
                pod = event["object"]
                if event["type"] == "DELETED":
                    self._gone.append(time.monotonic())
                elif pod["status"]["phase"] == "Succeeded":
                    metadata = pod["metadata"]
                    due = self._kept_until.pop(metadata["name"], None)
                    if due is not None:
                        heapq.heappush(self._ended, (due, metadata["name"], metadata["uid"]))
            if len(self._gone) == count:
                return
        raise ConnectionError("the watch ended before its pods did")

    async def _remove(self, count: int) -> None:
        while count:
            now = time.monotonic()
            due = []
            while self._ended and self._ended[0][0] <= now:
                due.append(heapq.heappop(self._ended))
            if not due:
                await asyncio.sleep(0.01)
            count -= len(due)
            await _each(due, lambda pod: self._api.remove(pod[1], pod[2]))


async def _each(items: Iterable[Any], step: Callable[[Any], Awaitable[None]]) -> None:
    """Carry out a step for each, some at once."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await step(item)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))


async def _main() -> None:
    config = KubeConfig.load()
    async with FastApi(config.kubernetes, 2 * _AT_ONCE + 1) as api:
        await serve(LimitClient(config, api).obey)


if __name__ == "__main__":
    uvloop.run(_main())
