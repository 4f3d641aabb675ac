"""Stands for the cluster's side of an event: `python -m kbroker.bench.observer`.

It obeys: `patch` pods' statuses at a given pace, and say when each was sent; `watch` pods from now
on; `seen`: when each was first seen; `play` the lives of all pods that come from now on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import uvloop

from kbroker.bench.commands import Command, serve
from kbroker.bench.config import config_of
from kbroker.bench.fast_api import FastApi
from kbroker.bench.helper import Helper
from kbroker.bench.site import Site
from kbroker.kube_config import KubeConfig
from kbroker.naming import DEPLOYMENT

RUNNING, SUCCESS = "running", "success"
_CONNECTIONS = 16
_NODE = "kbroker-bench-node"


class Observer:
    """Changes pods, and sees them change, at known moments.

    Args:
        api: the API server.
        deployments: whose pods, by commas.
    """

    def __init__(self, api: FastApi, deployments: str) -> None:
        self._api = api
        self._selector = f"{DEPLOYMENT} in ({deployments})"
        self._lives: set[asyncio.Task[None]] = set()
        self._seen: dict[str, float] = {}
        self._watching: asyncio.Task[None] | None = None

    async def obey(self, command: Command) -> Any:
        """Obey one command."""
        match command["do"]:
            case "patch":
                return await self._patch(command["behind"], command["per_s"])
            case "watch":
                return await self._open(self._see)
            case "play":
                return await self._play(command["seconds"])
            case "seen":
                if self._watching is not None and self._watching.done():
                    self._watching.result()
                return {"seen": self._seen}
        raise ValueError(command["do"])

    async def _patch(self, behind: int, per_s: float) -> dict[str, Any]:
        """Have every pod run and, so many changes later, succeed."""
        tasks = {
            pod["metadata"]["labels"]["task_id"]: pod["metadata"]["name"]
            for pod in await self._api.all(self._selector)
        }
        order = sorted(tasks)
        changes = [(task, RUNNING) for task in order]
        ends = [(task, SUCCESS) for task in order]
        woven = changes[:behind]
        for change, end in zip(changes[behind:], ends[: len(changes) - behind], strict=True):
            woven += [change, end]
        woven += ends[len(changes) - behind :]
        sent: list[tuple[str, str, float]] = []
        began = time.monotonic() + 0.1
        asked = []
        for number, (task, state) in enumerate(woven):
            await asyncio.sleep(began + number / per_s - time.monotonic())
            sent.append((task, state, time.monotonic()))
            asked.append(asyncio.create_task(self._say(tasks[task], state)))
        await asyncio.gather(*asked)
        return {"sent": sent}

    async def _say(self, name: str, state: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        container: dict[str, Any]
        if state == RUNNING:
            phase, container = "Running", {"running": {"startedAt": now}}
        else:
            end = {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}
            phase, container = "Succeeded", {"terminated": end}
        base = {
            "name": "base",
            "image": "busybox:1.37",
            "imageID": "",
            "ready": state == RUNNING,
            "restartCount": 0,
            "state": container,
        }
        await self._api.set_status(name, {"phase": phase, "containerStatuses": [base]})

    async def _play(self, seconds: float) -> None:
        """Bind, run and end every new pod, as a node would."""

        async def live(name: str) -> None:
            await self._api.bind(name, _NODE)
            await self._say(name, RUNNING)
            await asyncio.sleep(seconds)
            await self._say(name, SUCCESS)

        def begin(event: dict[str, Any]) -> None:
            if event["type"] == "ADDED":
                task = asyncio.create_task(live(event["object"]["metadata"]["name"]))
                self._lives.add(task)
                task.add_done_callback(self._over)

        await self._open(begin)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._lives.discard(task)
        task.result()  # asyncio prints what was raised: into the log

    def _see(self, event: dict[str, Any]) -> None:
        task = event["object"]["metadata"]["labels"]["task_id"]
        self._seen.setdefault(task, time.monotonic())

    async def _open(self, take: Callable[[dict[str, Any]], None]) -> None:
        """Watch from now on; `take` gets every event."""
        opened = asyncio.Event()
        self._watching = asyncio.create_task(self._watch(opened, take))
        waits = asyncio.create_task(opened.wait())
        await asyncio.wait((waits, self._watching), return_when=asyncio.FIRST_COMPLETED)

    async def _watch(self, opened: asyncio.Event, take: Callable[[dict[str, Any]], None]) -> None:
        async for lines in self._api.watch(self._selector):
            opened.set()
            for line in lines:
                take(orjson.loads(line))


def helper(site: Site, folder: Path, *deployments: str) -> Helper:
    """An observer of these deployments' pods."""
    config = config_of(site, folder, ",".join(deployments))
    return Helper("observer", "kbroker.bench.observer", config, folder)


async def _main() -> None:
    config = KubeConfig.load()
    async with FastApi(config.kubernetes, _CONNECTIONS) as api:
        await serve(Observer(api, config.core.deployment).obey)


if __name__ == "__main__":
    uvloop.run(_main())
