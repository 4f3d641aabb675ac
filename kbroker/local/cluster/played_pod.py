"""A pod whose life is only told: bound, running, succeeded, and no process behind it.

For measuring what stands in front of a kubelet: real containers would cost the machine more
than all that is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from kbroker.local.cluster.container import Container
from kbroker.local.cluster.ending import Ending
from kbroker.local.cluster.processes import Processes
from kbroker.local.cluster.report import ENDED, Report
from kbroker.local.cluster.store import Object, timestamp
from kbroker.local.cluster.volumes import Volumes

_KILLED = 137


class Host(Protocol):
    """What a played pod needs of its node; see `Node`."""

    processes: Processes

    def publish(self, pod: Object, report: Report) -> Object | None:
        """Write a status into the store; the pod as it stands, None once it is gone."""


class PlayedPod:
    """One pod on the node, in place of a `PodWorker`.

    It starts at once, runs for a while and succeeds; deleted, evicted or past its deadline it is
    killed without grace. Init containers and sidecars are not told of, nor is there any log.

    Args:
        pod: the pod as it was bound.
        folder: the pod's own folder, which is not made.
        host: the node.
        seconds: how long it runs.
    """

    def __init__(self, pod: Object, folder: Path, host: Host, seconds: float) -> None:
        self.pod = pod
        self._host = host
        self._seconds = seconds
        volumes = Volumes(pod["spec"], folder)
        self._containers = [
            Container(spec, folder, host.processes, volumes) for spec in pod["spec"]["containers"]
        ]
        began = datetime.now(UTC)
        self._report = Report(timestamp(began), [], self._containers)
        self._over = asyncio.Event()
        self._ending = Ending(began, self.kill, self.kill)

    def update(self, pod: Object) -> None:
        """The pod was changed: it may have a deadline now, or is to be deleted."""
        self.pod = pod
        self._ending.changed()
        if pod["status"]["phase"] in ENDED and not self._report.phase:
            self.kill()

    def evict(self, message: str) -> None:
        """The node is short of something, says the message."""
        self._ending.evict(message)

    def kill(self) -> None:
        """End it at once."""
        self._over.set()

    async def run(self) -> None:
        """From binding to the last status."""
        ending = asyncio.create_task(self._ending.watch(lambda: self.pod))
        started = timestamp()
        for container in self._containers:
            container.state = {"running": {"startedAt": started}}
            container.has_started()
        self._publish()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), self._seconds)
        finally:
            ending.cancel()
        self._end(started, _KILLED if self._over.is_set() else 0)

    def _end(self, started: str, code: int) -> None:
        ended = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "startedAt": started,
            "finishedAt": timestamp(),
        }
        for container in self._containers:
            container.state = {"terminated": dict(ended)}
            container.started = container.ready = False
        self._report.reason, self._report.message = self._ending.reason, self._ending.message
        self._report.phase = "Failed" if code else "Succeeded"
        self._publish()

    def _publish(self) -> None:
        pod = self._host.publish(self.pod, self._report)
        if pod is not None:
            self.pod = pod
