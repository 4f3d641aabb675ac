"""What a kubelet does for one pod: pull, run, watch the deadline, report, end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from kbroker.local.cluster.container import Container
from kbroker.local.cluster.environment import NotStarted
from kbroker.local.cluster.processes import Processes
from kbroker.local.cluster.report import ENDED, Report, is_sidecar
from kbroker.local.cluster.store import Object, timestamp

_PULL_RETRY = 0.3
_BACKOFF_MAX = 300.0
_DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"
_SIDECAR_GRACE = 1.0


class Host(Protocol):
    """What a pod's worker needs of its node."""

    processes: Processes
    crash_backoff: float

    def publish(self, pod: Object, report: Report) -> Object | None:
        """Write a status into the store; the pod as it stands, None once it is gone."""

    def record(self, pod: Object, kind: str, reason: str, message: str) -> None:
        """Write an event about a pod."""

    def find(self, namespace: str, resource: str, name: str) -> Object | None:
        """A secret or config map."""


@dataclass
class _Ending:
    """When the pod's processes are told to end, and when they are killed (loop's clock)."""

    told: bool = False
    kill_at: float = float("inf")


class PodWorker:
    """One pod on the node.

    Args:
        pod: the pod as it was bound.
        folder: the pod's own folder.
        host: the node.
    """

    def __init__(self, pod: Object, folder: Path, host: Host) -> None:
        self.pod = pod
        self._folder = folder
        self._host = host
        spec = pod["spec"]
        self._inits = [
            Container(s, folder, host.processes) for s in spec.get("initContainers") or []
        ]
        self._containers = [Container(s, folder, host.processes) for s in spec["containers"]]
        if self._inits:
            for container in self._containers:
                container.state = {"waiting": {"reason": "PodInitializing"}}
        self._began = datetime.now(UTC)
        self._report = Report(timestamp(self._began), self._inits, self._containers)
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    def update(self, pod: Object) -> None:
        """The pod was changed: it may have a deadline now, or is to be deleted."""
        self.pod = pod
        self._changed.set()
        if pod["status"]["phase"] in ENDED and not self._report.phase:
            self.kill()  # somebody else has declared it ended

    def kill(self) -> None:
        """End every process at once."""
        self._over.set()
        self._signal(signal.SIGKILL)

    async def run(self) -> None:
        """From binding to the last status."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._publish()
        supervisor = asyncio.create_task(self._supervise())
        try:
            if await self._run_inits() and not self._ending:
                await asyncio.gather(*(self._run_container(c) for c in self._containers))
            await self._end_sidecars()
        finally:
            supervisor.cancel()
        good = not self._report.reason and all(c.exit_code == 0 for c in self._containers)
        self._report.phase = "Succeeded" if good else "Failed"
        self._publish()
        await self._clean()

    @property
    def _ending(self) -> bool:
        """Whether the pod is to end, or is ending."""
        return self._over.is_set()

    def _signal(self, number: signal.Signals) -> None:
        for container in [*self._inits, *self._containers]:
            container.signal(number)

    async def _supervise(self) -> None:
        """End the pod at its deadline, or when it is to be deleted."""
        loop = asyncio.get_running_loop()
        ending = _Ending()
        while True:
            self._changed.clear()
            deletion_grace = self.pod["metadata"].get("deletionGracePeriodSeconds")
            left = self._left()
            if deletion_grace is not None:
                ending.kill_at = min(ending.kill_at, loop.time() + deletion_grace)
            elif left <= 0 and not ending.told:
                self._report.reason = "DeadlineExceeded"
                self._report.message = _DEADLINE_MESSAGE
                grace = self.pod["spec"]["terminationGracePeriodSeconds"]
                ending.kill_at = loop.time() + grace
            if ending.kill_at < float("inf") and not ending.told:
                ending.told = True
                self._tell()
            moment = ending.kill_at - loop.time() if ending.told else left
            if ending.told and moment <= 0:
                self.kill()
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._changed.wait(), None if moment == float("inf") else moment
                )

    def _left(self) -> float:
        """Seconds until the deadline."""
        deadline = self.pod["spec"].get("activeDeadlineSeconds")
        if deadline is None:
            return float("inf")
        return float(deadline) - (datetime.now(UTC) - self._began).total_seconds()

    def _tell(self) -> None:
        self._over.set()
        for container in [*self._inits, *self._containers]:
            if container.running:
                self._record("Normal", "Killing", f"Stopping container {container.name}")
                container.signal(signal.SIGTERM)

    async def _run_inits(self) -> bool:
        policy = "Never" if self.pod["spec"]["restartPolicy"] == "Never" else "OnFailure"
        for container in self._inits:
            if is_sidecar(container.spec):
                if not await self._started(container):
                    return False
                continue
            await self._run_one(container, policy)
            if container.exit_code != 0:
                return False
        for container in self._containers:
            container.state = {"waiting": {"reason": "ContainerCreating"}}
        return True

    async def _run_container(self, container: Container) -> None:
        await self._run_one(container, self.pod["spec"]["restartPolicy"])
        if not self._ending and any(c.exit_code is None for c in self._containers):
            self._publish()

    async def _run_one(self, container: Container, policy: str) -> None:
        """Run a container until it has ended for good."""
        while await self._started(container):
            await container.wait()
            if self._ending or policy == "Never":
                return
            if policy == "OnFailure" and container.exit_code == 0:
                return
            await self._back_off(container)

    async def _started(self, container: Container) -> bool:
        """Pull and start; False when the pod ended before that."""
        if not await self._pulled(container):
            return False
        metadata = self.pod["metadata"]
        while not self._ending:
            if container.restarts:
                container.keep_log()
            try:
                await container.start(
                    self.pod, lambda kind, name: self._host.find(metadata["namespace"], kind, name)
                )
            except NotStarted as problem:
                container.state = {"waiting": {"reason": problem.reason, "message": str(problem)}}
                self._record("Warning", "Failed", f"Error: {problem}")
                self._publish()
                await self._pause(self._host.crash_backoff)
                continue
            if self._ending:
                # The end came while the process was being made.
                container.signal(signal.SIGKILL)
                return True
            self._record("Normal", "Created", f"Created container: {container.name}")
            if container.running:
                self._record("Normal", "Started", f"Started container {container.name}")
            else:
                self._record(
                    "Warning", "Failed", f"Error: {container.state['terminated']['message']}"
                )
            self._publish()
            return True
        return False

    async def _pulled(self, container: Container) -> bool:
        """Nothing is pulled here; only names under `.invalid` (RFC 2606) never can be."""
        image = container.spec["image"]
        host, slash, _ = image.partition("/")
        host = host.partition(":")[0]
        if (
            not slash
            or not host.endswith(".invalid")
            or container.spec["imagePullPolicy"] == "Never"
        ):
            self._record(
                "Normal", "Pulled", f'Container image "{image}" already present on machine'
            )
            return not self._ending
        problem = (
            f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": '
            f"dial tcp: lookup {host}: no such host"
        )
        self._record("Normal", "Pulling", f'Pulling image "{image}"')
        self._record("Warning", "Failed", f'Failed to pull image "{image}": {problem}')
        self._record("Warning", "Failed", "Error: ErrImagePull")
        container.state = {"waiting": {"reason": "ErrImagePull", "message": problem}}
        self._publish()
        await self._pause(_PULL_RETRY)
        if self._ending:
            return False
        message = f'Back-off pulling image "{image}": ErrImagePull: {problem}'
        self._record("Normal", "BackOff", f'Back-off pulling image "{image}"')
        self._record("Warning", "Failed", "Error: ImagePullBackOff")
        container.state = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
        self._publish()
        await self._over.wait()
        return False

    async def _back_off(self, container: Container) -> None:
        wait = min(self._host.crash_backoff * 2.0**container.restarts, _BACKOFF_MAX)
        metadata = self.pod["metadata"]
        where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        message = f"back-off {wait:g}s restarting failed container={container.name} pod={where}"
        container.restarting(message)
        self._record("Warning", "BackOff", f"Back-off restarting failed container {container.name}")
        self._publish()
        await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for a pod that ends."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    async def _end_sidecars(self) -> None:
        running = [container for container in self._inits if container.running]
        for container in running:
            container.signal(signal.SIGTERM)
        for container in running:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(container.wait(), _SIDECAR_GRACE)
            container.signal(signal.SIGKILL)
            await container.wait()

    async def _clean(self) -> None:
        """Remove the containers' working folders; their logs stay."""
        for container in [*self._inits, *self._containers]:
            folder = self._folder / container.name
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:  # it is not empty
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _record(self, kind: str, reason: str, message: str) -> None:
        self._host.record(self.pod, kind, reason, message)

    def _publish(self) -> None:
        """Write the status into the store."""
        pod = self._host.publish(self.pod, self._report)
        if pod is not None:
            self.pod = pod
