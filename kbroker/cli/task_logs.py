"""The logs of a run's tasks, fetched from Kubernetes before their pods go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbroker.errors import KbrokerError
from kbroker.event import Outcome
from kbroker.kube_config import KubeConfig
from kbroker.naming import make_safe_label_value
from kbroker.task import TaskKey

if TYPE_CHECKING:
    from kbroker.kube_client import KubeClient

_AT_ONCE = 16
_LONGEST = 60.0


class TaskLogs:
    """Keeps each task's log as FOLDER/TASK.log, and earlier tries' as FOLDER/TASK.try-N.log.

    Works in a thread of its own; the caller's loop never waits for it.

    Args:
        folder: where to; made if need be.
        config: names the cluster.

    Raises:
        ClusterError: there is no usable kubeconfig.
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path, config: KubeConfig) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._done: deque[TaskKey] = deque()
        self._news: deque[str] = deque()
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._kube = self._run(_connect(config)).result()
        except BaseException:
            # The thread would outlive whatever ended this: Ctrl-C too.
            self._stop()
            raise

    def close(self) -> None:
        """Stop; what was not fetched is left."""
        with contextlib.suppress(KbrokerError, OSError):
            self._run(self._kube.close()).result(timeout=5.0)
        self._stop()

    def fetch(self, key: TaskKey, outcome: Outcome, *, last: bool) -> None:
        """Begin to fetch a try's log; `last` unless the task is tried again."""
        tried = "" if last else f".try-{key.try_number}"
        path = self._folder / f"{make_safe_label_value(key.task_id)}{tried}.log"
        if outcome.uid is None:
            self._done.append(key)  # there was no pod
        else:
            self._run(self._keep(key, outcome, path))

    def fetched(self) -> list[TaskKey]:
        """The tries whose log was fetched, or could not be, since the last call."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def news(self) -> list[str]:
        """What went wrong since the last call."""
        return [self._news.popleft() for _ in range(len(self._news))]

    async def _keep(self, key: TaskKey, outcome: Outcome, path: Path) -> None:
        try:
            async with self._slots, asyncio.timeout(_LONGEST):
                await self._write(outcome, path)
        except (KbrokerError, OSError, TimeoutError) as error:
            why = str(error) or "it took too long"
            self._news.append(f"{key.task_id}: its log was not kept: {why}")
        finally:
            self._done.append(key)

    async def _write(self, outcome: Outcome, path: Path) -> None:
        """A log is there whole or not at all."""
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                async for piece in self._kube.pod_log(outcome.namespace, outcome.pod):
                    file.write(piece)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5.0)


async def _connect(config: KubeConfig) -> KubeClient:
    from kbroker.kube_client import KubeClient  # noqa: PLC0415 - an extra

    return await KubeClient.connect(config.kubernetes)
