"""Copies into the ledger what containers say that cannot write to it: their logs are followed.

Where a log is lost with its pod, the pod's status tells at least that its container started.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from kbroker.kube_client import ApiError, KubeClient
from kbroker.kube_config import KubeConfig
from kbroker.naming import attempt_from_annotations
from kbroker.pod import ContainerStatus, Pod
from kbroker.pod_failure import base_status, has_started
from kbroker.soak.pods import list_all

_LOOK_EVERY = 0.5
_MARKS = ("start ", "end ")


class Observer:
    """Follows the log of every container that starts.

    Args:
        config: how to get to the cluster, whose pods, and where.
        ledger: path of the file.
    """

    def __init__(self, config: KubeConfig, ledger: Path) -> None:
        self._config = config
        self._ledger = ledger
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._written: set[str] = set()
        self._told: set[str] = set()  # uids of which a line was written
        self._following: dict[tuple[str, int], asyncio.Task[None]] = {}

    def start(self) -> Observer:
        """Begin."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Look once more, and end."""
        self._stopped.set()
        self._thread.join()

    async def _run(self) -> None:
        client = await KubeClient.connect(self._config.kubernetes)
        try:
            while not self._stopped.is_set():
                await self._look(client)
                await asyncio.sleep(_LOOK_EVERY)
            await self._look(client)
            await asyncio.gather(*self._following.values(), return_exceptions=True)
        finally:
            await client.close()

    async def _look(self, client: KubeClient) -> None:
        """Follow what has started since the last look."""
        with contextlib.suppress(ApiError):  # it is looked for again
            for pod in await list_all(client, self._config):
                base = _started(pod)
                if base is not None and (pod.uid, base.restart_count) not in self._following:
                    step = asyncio.ensure_future(self._follow(client, pod, base))
                    self._following[pod.uid, base.restart_count] = step

    async def _follow(self, client: KubeClient, pod: Pod, base: ContainerStatus) -> None:
        rest = b""
        with contextlib.suppress(ApiError):
            async for piece in client.pod_log(pod.namespace, pod.name, follow=True):
                *lines, rest = (rest + piece).split(b"\n")
                self._write(pod, (line.decode(errors="replace") for line in lines))
        if pod.uid not in self._told:
            self._write(pod, _from_status(pod, base))

    def _write(self, pod: Pod, lines: Iterator[str]) -> None:
        fresh = [line for line in lines if line.startswith(_MARKS) and line not in self._written]
        if not fresh:
            return
        self._told.add(pod.uid)
        self._written.update(fresh)
        with self._ledger.open("a") as ledger:
            ledger.writelines(f"{line}\n" for line in fresh)


def _started(pod: Pod) -> ContainerStatus | None:
    """The status of the base container, once it has started."""
    base = base_status(pod)
    return base if base is not None and has_started(base) else None


def _from_status(pod: Pod, base: ContainerStatus) -> Iterator[str]:
    """The lines of the ledger that a pod's status stands for."""
    attempt = attempt_from_annotations(pod.annotations)
    if attempt is None:
        return
    launch = attempt.launch
    what = f"{launch.key.task_id} {launch.launch_id} {attempt.number} {pod.uid} 0 0"
    yield f"start - {what}"
    end = base.state and base.state.terminated
    if end is not None and end.exit_code == 0:
        yield f"end 0 {what}"
