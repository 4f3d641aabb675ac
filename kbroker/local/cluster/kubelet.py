"""What a kubelet does for one pod: mount, pull, run, watch the deadline, report, end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from kbroker.local.cluster.container import Container
from kbroker.local.cluster.ending import Ending
from kbroker.local.cluster.environment import NotStarted
from kbroker.local.cluster.images import pull_problem, pulled_later
from kbroker.local.cluster.memory import MemoryWatch
from kbroker.local.cluster.pod_folders import make_folder
from kbroker.local.cluster.processes import Processes
from kbroker.local.cluster.quantity import quantity
from kbroker.local.cluster.report import ENDED, EVICTED, Report, is_sidecar
from kbroker.local.cluster.store import Object, timestamp
from kbroker.local.cluster.volume_files import Sources
from kbroker.local.cluster.volumes import Volumes

_PULL_RETRY = 0.3
_BACKOFF_MAX = 300.0
_MOUNT_RETRY = 0.5


class Host(Protocol):
    """What a pod's worker needs of its node."""

    processes: Processes
    memory: MemoryWatch
    crash_backoff: float

    def publish(self, pod: Object, report: Report) -> Object | None:
        """Write a status into the store; the pod as it stands, None once it is gone."""

    def record(
        self, pod: Object, kind: str, reason: str, message: str, container: str = ""
    ) -> None:
        """Write an event about a pod."""

    def find(self, namespace: str, resource: str, name: str) -> Object | None:
        """A secret or config map."""

    def on_supplies(self, namespace: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when a secret or config map comes or changes; returns how to stop that."""

    def token(self, pod: Object, audience: str, seconds: int) -> str:
        """A token of the pod's service account."""


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
        self._volumes = Volumes(spec, folder)
        self._inits = [self._container(s) for s in spec.get("initContainers") or []]
        self._containers = [self._container(s) for s in spec["containers"]]
        if self._inits:
            for container in [*self._inits[1:], *self._containers]:
                container.state = {"waiting": {"reason": "PodInitializing"}}
        began = datetime.now(UTC)
        self._report = Report(timestamp(began), self._inits, self._containers)
        self._over = asyncio.Event()  # nothing is to be started any more
        self._ending = Ending(began, self._tell, self.kill)
        self._sidecars: dict[Container, asyncio.Task[None]] = {}

    def _container(self, spec: Object) -> Container:
        return Container(spec, self._folder, self._host.processes, self._volumes)

    def update(self, pod: Object) -> None:
        """The pod was changed: it may have a deadline now, or is to be deleted."""
        self.pod = pod
        self._ending.changed()
        if pod["status"]["phase"] in ENDED and not self._report.phase:
            self.kill()  # somebody else has declared it ended

    def evict(self, message: str) -> None:
        """The node is short of something, says the message: the pod is killed, and has failed."""
        self._record("Warning", EVICTED, message)
        self._ending.evict(message)

    def kill(self) -> None:
        """End every process at once."""
        self._over.set()
        self._signal(signal.SIGKILL)

    async def run(self) -> None:
        """From binding to the last status."""
        make_folder(self._folder)
        ending = asyncio.create_task(self._ending.watch(lambda: self.pod))
        try:
            if await self._mounted() and await self._run_inits() and not self._over.is_set():
                await asyncio.gather(*(self._run_container(c) for c in self._containers))
            await self._end_sidecars()
        finally:
            ending.cancel()
            for task in self._sidecars.values():
                task.cancel()
        self._report.reason, self._report.message = self._ending.reason, self._ending.message
        good = not self._report.reason and all(c.exit_code == 0 for c in self._containers)
        self._report.phase = "Succeeded" if good else "Failed"
        self._publish()
        await asyncio.to_thread(self._clean) if self._volumes else self._clean()

    def _signal(self, number: signal.Signals) -> None:
        for container in [*self._inits, *self._containers]:
            container.signal(number)

    def _tell(self) -> None:
        """The pod is to end: everything but its sidecars, which end after the others."""
        self._over.set()
        for container in [*self._inits, *self._containers]:
            if not is_sidecar(container.spec):
                self._stop(container)

    def _stop(self, container: Container) -> None:
        if container.running:
            self._record("Normal", "Killing", f"Stopping container {container.name}", container)
            container.signal(signal.SIGTERM)

    async def _mounted(self) -> bool:
        """Make the volumes; False when the pod ended before they could be made."""
        delay = _MOUNT_RETRY
        while self._volumes and not self._over.is_set():
            sources = Sources(
                self.pod, self._find, lambda *terms: self._host.token(self.pod, *terms)
            )
            volume, problem = self._volumes.make(sources)
            if not problem:
                break
            self._report.mounted = False
            said = f'MountVolume.SetUp failed for volume "{volume}" : {problem}'
            self._record("Warning", "FailedMount", said)
            self._publish()
            await self._supplied(delay)
            delay = min(2 * delay, _BACKOFF_MAX)
        self._report.mounted = not self._over.is_set()
        self._publish()
        return self._report.mounted

    async def _run_inits(self) -> bool:
        policy = "Never" if self.pod["spec"]["restartPolicy"] == "Never" else "OnFailure"
        for container in self._inits:
            if is_sidecar(container.spec):
                if not await self._started(container):
                    return False
                self._sidecars[container] = asyncio.create_task(self._keep(container))
                continue
            await self._run_one(container, policy)
            if container.exit_code != 0:
                return False
        for container in self._containers:
            container.state = {"waiting": {"reason": "ContainerCreating"}}
        return True

    async def _run_container(self, container: Container) -> None:
        await self._run_one(container, self.pod["spec"]["restartPolicy"])
        if not self._over.is_set() and any(c.exit_code is None for c in self._containers):
            self._publish()

    async def _run_one(self, container: Container, policy: str) -> None:
        """Run a container until it has ended for good."""
        while await self._started(container):
            await self._end_of(container)
            if self._over.is_set() or policy == "Never":
                return
            if policy == "OnFailure" and container.exit_code == 0:
                return
            await self._back_off(container)

    async def _keep(self, sidecar: Container) -> None:
        """Start a sidecar again whenever it ends."""
        while True:
            await self._end_of(sidecar)
            if self._over.is_set():
                return
            await self._back_off(sidecar)
            if not await self._started(sidecar):
                return

    async def _end_of(self, container: Container) -> None:
        limit = quantity((container.spec["resources"].get("limits") or {}).get("memory"))
        if limit and container.running:

            def exceeded() -> None:
                container.out_of_memory = True
                container.signal(signal.SIGKILL)

            self._host.memory.add(container.pid, int(limit), exceeded)
        await container.wait()
        self._host.memory.remove(container.pid)

    async def _started(self, container: Container) -> bool:
        """Pull and start; False when the pod ended before that."""
        if not await self._pulled(container):
            return False
        delay = self._host.crash_backoff
        while not self._over.is_set():
            try:
                await container.start(self.pod, self._find)
            except NotStarted as problem:
                container.state = {"waiting": {"reason": problem.reason, "message": str(problem)}}
                self._record("Warning", "Failed", f"Error: {problem}", container)
                self._publish()
                await self._supplied(delay)
                delay = min(2 * delay, _BACKOFF_MAX)
                continue
            if self._over.is_set():
                # The end came while the process was being made.
                container.signal(signal.SIGKILL)
                return True
            self._record("Normal", "Created", f"Created container: {container.name}", container)
            if container.running:
                said = ("Normal", "Started", f"Started container {container.name}")
            else:
                said = ("Warning", "Failed", f"Error: {container.state['terminated']['message']}")
            self._record(*said, container)
            self._publish()
            return True
        return False

    async def _pulled(self, container: Container) -> bool:
        """Whether the image is there; waits for the pod's end when it cannot be pulled."""
        image = container.spec["image"]
        while (
            problem := pull_problem(container.spec, container.pulls)
        ) and not self._over.is_set():
            container.pulls += 1
            await self._not_pulled(container, problem)
        if self._over.is_set():
            return False
        said = f'Container image "{image}" already present on machine'
        if container.pulls and not container.begun:
            said = f'Successfully pulled image "{image}" in 1ms (1ms including waiting).'
        self._record("Normal", "Pulled", said, container)
        return True

    async def _not_pulled(self, container: Container, problem: str) -> None:
        """One pull that failed, and the wait for the next one."""
        image = container.spec["image"]
        self._record("Normal", "Pulling", f'Pulling image "{image}"', container)
        said = f'Failed to pull image "{image}": {problem}'
        self._record("Warning", "Failed", said, container)
        self._record("Warning", "Failed", "Error: ErrImagePull", container)
        container.state = {"waiting": {"reason": "ErrImagePull", "message": problem}}
        self._publish()
        await self._pause(_PULL_RETRY)
        if self._over.is_set():
            return
        message = f'Back-off pulling image "{image}": ErrImagePull: {problem}'
        self._record("Normal", "BackOff", f'Back-off pulling image "{image}"', container)
        self._record("Warning", "Failed", "Error: ImagePullBackOff", container)
        container.state = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
        self._publish()
        # A name that never resolves need not be tried again.
        await (self._pause(_PULL_RETRY) if pulled_later(container.spec) else self._over.wait())

    async def _back_off(self, container: Container) -> None:
        """Wait before a restart: not before the first, then twice as long each time."""
        crashes = container.ended_once_more()
        if crashes == 0:
            container.back_off("")
            return
        wait = min(self._host.crash_backoff * 2.0 ** (crashes - 1), _BACKOFF_MAX)
        metadata = self.pod["metadata"]
        where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        said = f"restarting failed container {container.name} in pod {where}"
        container.back_off(
            f"back-off {wait:g}s restarting failed container={container.name} pod={where}"
        )
        self._record("Warning", "BackOff", f"Back-off {said}", container)
        self._publish()
        await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for a pod that ends."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    async def _supplied(self, seconds: float) -> None:
        """Wait until a secret or config map comes, or so long; but not for a pod that ends."""
        came = asyncio.Event()
        stop = self._host.on_supplies(self.pod["metadata"]["namespace"], came.set)
        waits = [asyncio.ensure_future(event.wait()) for event in (came, self._over)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop()
            for wait in waits:
                wait.cancel()

    async def _end_sidecars(self) -> None:
        """They end last of all, in the reverse order of their start."""
        self._over.set()
        if self._sidecars:
            self._ending.begin(self.pod["spec"]["terminationGracePeriodSeconds"])
        for container, kept in reversed(self._sidecars.items()):
            self._stop(container)
            await kept

    def _clean(self) -> None:
        """Remove the volumes and the containers' working folders; their logs stay."""
        if self._volumes:
            self._volumes.remove()
        for container in [*self._inits, *self._containers]:
            folder = self._folder / container.name
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:  # it is not empty
                shutil.rmtree(folder, ignore_errors=True)

    def _find(self, resource: str, name: str) -> Object | None:
        return self._host.find(self.pod["metadata"]["namespace"], resource, name)

    def _record(
        self, kind: str, reason: str, message: str, container: Container | None = None
    ) -> None:
        path = ""
        if container is not None:
            field = "initContainers" if container in self._inits else "containers"
            path = f"spec.{field}{{{container.name}}}"
        self._host.record(self.pod, kind, reason, message, path)

    def _publish(self) -> None:
        """Write the status into the store."""
        pod = self._host.publish(self.pod, self._report)
        if pod is not None:
            self.pod = pod
