"""What a kubelet does for one pod: pull, run, watch the deadline, report, end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from kbroker.local.cluster.container import Container, NotStarted
from kbroker.local.cluster.store import Object, timestamp

_PULL_RETRY = 0.3
_CRASH_BACKOFF = 1.0
_CRASH_BACKOFF_MAX = 30.0
_DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"

Record = Callable[[str, str, str], None]  # event type, reason, message
Publish = Callable[[Callable[[Object], None]], Object | None]


class PodWorker:
    """One pod on the node.

    Args:
        pod: the pod as it was bound.
        folder: the pod's own folder.
        publish: changes the pod's status in the store; gives the pod as it stands, None
            once it is gone.
        record: writes an event about the pod.
    """

    def __init__(self, pod: Object, folder: Path, publish: Publish, record: Record) -> None:
        self._pod = pod
        self._folder = folder
        self._publish = publish
        self._record = record
        spec = pod["spec"]
        self._inits = [Container(s, pod, folder) for s in spec.get("initContainers") or []]
        self._containers = [Container(s, pod, folder) for s in spec["containers"]]
        self._started_at = datetime.now(UTC)
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._reason = ""
        self._message = ""

    def update(self, pod: Object) -> None:
        """The pod was changed: it may have a deadline now, or is to be deleted."""
        self._pod = pod
        self._changed.set()

    def kill(self) -> None:
        """End every process at once."""
        self._over.set()
        for container in [*self._inits, *self._containers]:
            container.kill()

    async def run(self) -> None:
        """From binding to the last status."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._report("Pending")
        supervisor = asyncio.create_task(self._supervise())
        try:
            if await self._run_inits() and not self._ending:
                await asyncio.gather(*(self._run_one(c) for c in self._containers))
        finally:
            await self._end_sidecars()
            supervisor.cancel()
        self._finish()

    async def _supervise(self) -> None:
        """End the pod at its deadline, or when it is to be deleted."""
        while not self._ending:
            self._changed.clear()
            deadline = self._pod["spec"].get("activeDeadlineSeconds")
            left = None
            if deadline is not None:
                spent = (datetime.now(UTC) - self._started_at).total_seconds()
                left = deadline - spent
                if left <= 0:
                    self._reason, self._message = "DeadlineExceeded", _DEADLINE_MESSAGE
                    await self._end(self._pod["spec"]["terminationGracePeriodSeconds"])
                    return
            if self._pod["metadata"].get("deletionTimestamp"):
                await self._end(self._pod["metadata"]["deletionGracePeriodSeconds"])
                return
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                continue

    async def _end(self, grace: float) -> None:
        self._over.set()
        self._record("Normal", "Killing", "Stopping the pod's containers")
        everything = [*self._inits, *self._containers]
        await asyncio.gather(*(container.end(grace) for container in everything))

    async def _run_inits(self) -> bool:
        for container in self._inits:
            sidecar = container.spec.get("restartPolicy") == "Always"
            if sidecar:
                if not await self._started(container):
                    return False
                continue
            await self._run_one(container)
            if container.exit_code != 0:
                return False
        return True

    async def _run_one(self, container: Container) -> None:
        """Run a container until it has ended for good."""
        policy = self._pod["spec"]["restartPolicy"]
        while await self._started(container):
            if container.running:
                await container.wait()
            if self._ending or policy == "Never":
                break
            if policy == "OnFailure" and container.exit_code == 0:
                break
            await self._back_off(container)
        if not self._ending:
            self._report()

    async def _started(self, container: Container) -> bool:
        """Pull and start; False when the pod ended before that."""
        image = container.spec["image"]
        if not await self._pulled(container, image):
            return False
        while not self._ending:
            try:
                await container.start()
            except NotStarted as problem:
                container.state = {"waiting": {"reason": problem.reason, "message": str(problem)}}
                self._record("Warning", "Failed", f"Error: {problem}")
                self._report()
                await self._pause(_CRASH_BACKOFF)
                continue
            if self._ending:
                # The end came while the process was being made.
                await container.end(0)
            self._record("Normal", "Started", f"Started container {container.name}")
            self._report()
            return True
        return False

    async def _pulled(self, container: Container, image: str) -> bool:
        """Nothing is pulled here; only names under `.invalid` (RFC 2606) never can be."""
        host = image.partition("/")[0].partition(":")[0]
        if "/" not in image or not host.endswith(".invalid"):
            return not self._ending
        problem = (
            f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": '
            f"dial tcp: lookup {host}: no such host"
        )
        self._record("Normal", "Pulling", f'Pulling image "{image}"')
        container.state = {"waiting": {"reason": "ErrImagePull", "message": problem}}
        self._record("Warning", "Failed", f'Failed to pull image "{image}": {problem}')
        self._report()
        await self._pause(_PULL_RETRY)
        while not self._ending:
            message = f'Back-off pulling image "{image}": ErrImagePull: {problem}'
            container.state = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
            self._record("Normal", "BackOff", f'Back-off pulling image "{image}"')
            self._report()
            await self._pause(3600)
        return False

    async def _back_off(self, container: Container) -> None:
        container.restarts += 1
        container.last_state = dict(container.state)
        wait = min(_CRASH_BACKOFF * 2.0 ** (container.restarts - 1), _CRASH_BACKOFF_MAX)
        message = f"back-off {wait:g}s restarting failed container={container.name}"
        container.state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        self._record("Warning", "BackOff", message)
        self._report()
        await self._pause(wait)

    @property
    def _ending(self) -> bool:
        """Whether the pod is to end, or is ending."""
        return self._over.is_set()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for a pod that ends."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    async def _end_sidecars(self) -> None:
        for container in self._inits:
            if container.running:
                await container.end(1)

    def _finish(self) -> None:
        """The last status; it says failed when any container did, or none could start."""
        good = not self._reason and all(c.exit_code == 0 for c in self._containers)
        self._report("Succeeded" if good else "Failed")

    def _report(self, phase: str = "") -> None:
        """Write the status into the store."""
        pod = self._publish(lambda status: self._describe(status, phase))
        if pod is not None:
            self._pod = pod

    def _describe(self, status: Object, phase: str) -> None:
        begun = [*self._inits, *self._containers]
        running = any(c.running or c.exit_code is not None or c.restarts for c in self._containers)
        present = phase or ("Running" if running else "Pending")
        status["phase"] = present
        status["startTime"] = timestamp(self._started_at)
        status["hostIP"] = status["podIP"] = "127.0.0.1"
        status["hostIPs"] = status["podIPs"] = [{"ip": "127.0.0.1"}]
        if self._reason and phase:
            status["reason"], status["message"] = self._reason, self._message
        if self._inits:
            status["initContainerStatuses"] = [c.status() for c in self._inits]
            if not running and not phase:
                for container in self._containers:
                    container.state = {"waiting": {"reason": "PodInitializing"}}
        status["containerStatuses"] = [c.status() for c in self._containers]
        ready = present == "Running" and all(c.running for c in self._containers)
        initialized = all(
            c.exit_code == 0 or c.spec.get("restartPolicy") == "Always" for c in self._inits
        )
        _set_condition(status, "PodReadyToStartContainers", bool(begun))
        _set_condition(status, "Initialized", initialized)
        why = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(
            present, "ContainersNotReady"
        )
        _set_condition(status, "ContainersReady", ready, why)
        _set_condition(status, "Ready", ready, why)


def _set_condition(status: Object, kind: str, true: bool, reason: str = "") -> None:
    conditions = status.setdefault("conditions", [])
    word = "True" if true else "False"
    found = next((c for c in conditions if c["type"] == kind), None)
    if found is None:
        found = {"type": kind}
        conditions.append(found)
    if found.get("status") != word:
        found["lastTransitionTime"] = timestamp()
    found["status"] = word
    found.pop("reason", None)
    if not true and reason:
        found["reason"] = reason


def set_scheduled(status: Object, problem: str) -> None:
    """The PodScheduled condition; `problem` says why no node was found."""
    _set_condition(status, "PodScheduled", not problem, "Unschedulable")
    found = next(c for c in status["conditions"] if c["type"] == "PodScheduled")
    if problem:
        found["message"] = problem
    else:
        found.pop("message", None)
