"""The cluster's single node, and the scheduler that fills it.

Only pods for the default scheduler, and those that somebody bound to this node, are its business;
every other pod is left alone entirely.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from kbroker.local.cluster import finalizers
from kbroker.local.cluster.events import KUBELET, SCHEDULER, Events
from kbroker.local.cluster.kubelet import PodWorker
from kbroker.local.cluster.memory import MemoryWatch
from kbroker.local.cluster.played_pod import PlayedPod
from kbroker.local.cluster.pod_folders import PodFolders
from kbroker.local.cluster.processes import Processes
from kbroker.local.cluster.report import ENDED, Report, set_scheduled
from kbroker.local.cluster.store import Change, Object, Store, Stored
from kbroker.local.cluster.volume_files import NotMounted

log = logging.getLogger(__name__)

NODE = "local"
_LABELS = {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}
_FULL = (
    "0/1 nodes are available: 1 Too many pods. "
    "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
)
# Makes a token: (namespace, service account, pod, audience, seconds).
MakeToken = Callable[[str, str, Object, str, int], str]


class Node:
    """Runs every pod that it has room for.

    Args:
        store: where pods come from and statuses go.
        folder: logs and working folders of all pods.
        max_pods: pods at once that have not ended; others wait.
        crash_backoff: seconds before the second restart of a container; doubled for each more.
        keep_logs: of how many deleted pods the logs are kept.
        mount: whether volumes are mounted where the machine allows it.
        play: for how many seconds pods are told to run, without any process; None really runs
            them.

    Attributes:
        make_token: makes tokens of service accounts for volumes; None if none are made.
        events: what is said about pods.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        max_pods: int,
        crash_backoff: float,
        *,
        keep_logs: int = 2000,
        mount: bool = True,
        play: float | None = None,
    ) -> None:
        self.processes = Processes()
        self.memory = MemoryWatch()
        self.crash_backoff = crash_backoff
        self.make_token: MakeToken | None = None
        self._store = store
        self._folders = PodFolders(folder, keep_logs)
        self._mount = mount
        self._play = play
        self._max_pods = max_pods
        self.events = Events(store, NODE)
        self._workers: dict[str, PodWorker | PlayedPod] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fresh: list[Object] = []
        self._queue: dict[str, Object] = {}  # uid → metadata of what waits for room
        store.create("nodes", _description(max_pods))
        self._stop_listening = store.listen("pods", self._on_change)

    async def start(self) -> None:
        """Get ready to run pods."""
        self._folders.open()
        await self.processes.open(self._folders.root if self._mount else None)

    async def stop(self) -> None:
        """Kill every process."""
        self._stop_listening()
        self.memory.close()
        await self.processes.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._folders.close()

    def log_file(self, pod: Object, container: str) -> Path:
        """Where a container's output is."""
        return self._folders.log_file(pod, container)

    def publish(self, pod: Object, report: Report) -> Object | None:
        """Write a pod's status; the pod as it stands, None once it is gone."""
        stored = self._current(pod["metadata"])
        if stored is None:
            return None
        if stored.object["status"]["phase"] in ENDED:
            return stored.object  # an ended pod never changes its mind
        after = stored.copy()
        report.write(after["status"], after["metadata"].get("generation"))
        return self._store.replace("pods", stored, after).object

    def record(
        self, pod: Object, kind: str, reason: str, message: str, container: str = ""
    ) -> None:
        """Write an event of the kubelet about a pod."""
        self.events.record(pod, KUBELET, kind, reason, message, container)

    def evict(self, pod: Object, message: str) -> bool:
        """Kill a pod's containers and report it Failed; False when it does not run here."""
        worker = self._workers.get(pod["metadata"]["uid"])
        if worker is not None:
            worker.evict(message)
        return worker is not None

    def find(self, namespace: str, resource: str, name: str) -> Object | None:
        """A secret or config map."""
        found = self._store.find(resource, namespace, name)
        return None if found is None else found.object

    def on_supplies(self, namespace: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when a secret or config map comes or changes; returns how to stop that."""

        def changed(change: Change) -> None:
            if change.now.object["metadata"].get("namespace") == namespace:
                wake()

        stops = [self._store.listen(resource, changed) for resource in ("secrets", "configmaps")]

        def stop() -> None:
            for each in stops:
                each()

        return stop

    def token(self, pod: Object, audience: str, seconds: int) -> str:
        """A token of the pod's service account.

        Raises:
            NotMounted: there are none.
        """
        account = pod["spec"].get("serviceAccountName") or "default"
        if self.make_token is None:
            raise NotMounted("tokens of service accounts are not made by the local cluster")
        return self.make_token(pod["metadata"]["namespace"], account, pod, audience, seconds)

    def _on_change(self, change: Change) -> None:
        pod = change.now.object
        uid = pod["metadata"]["uid"]
        if change.type == "DELETED":
            self._queue.pop(uid, None)
            worker = self._workers.get(uid)
            if worker is not None:
                worker.kill()
            elif pod["spec"].get("nodeName") == NODE:
                self._folders.gone(pod)
        elif uid in self._workers:
            self._workers[uid].update(pod)
        elif pod["spec"].get("nodeName") == NODE and pod["metadata"].get("deletionTimestamp"):
            # It is back from a backup: nothing of it runs any more.
            asyncio.get_running_loop().call_soon(self._remove, pod["metadata"])
        elif pod["spec"].get("nodeName"):
            self._queue.pop(uid, None)
            was = None if change.before is None else change.before.object["spec"].get("nodeName")
            if pod["spec"]["nodeName"] == NODE and not was and pod["status"]["phase"] == "Pending":
                self._take(pod)  # somebody else has bound it to this node
        elif change.type == "ADDED" and pod["spec"]["schedulerName"] == SCHEDULER:
            # Afterwards, so that its creator sees it unscheduled, as with a real scheduler.
            if not self._fresh:
                asyncio.get_running_loop().call_soon(self._schedule_fresh)
            self._fresh.append(pod["metadata"])

    def _schedule_fresh(self) -> None:
        fresh, self._fresh = self._fresh, []
        for metadata in fresh:
            stored = self._unbound(metadata)
            if stored is None:
                continue
            problem = _misfit(stored.object["spec"])
            if problem:
                self._refuse(stored, problem)
            elif len(self._workers) < self._max_pods and not self._queue:
                self._bind(stored)
            else:
                self._queue[metadata["uid"]] = metadata
                self._refuse(stored, _FULL)

    def _fill(self) -> None:
        """There is room again: bind what waits, in order."""
        while self._queue and len(self._workers) < self._max_pods:
            uid = next(iter(self._queue))
            stored = self._unbound(self._queue.pop(uid))
            if stored is not None:
                self._bind(stored)

    def _unbound(self, metadata: Object) -> Stored | None:
        """A pod that waits for a node; None when it goes, or somebody else has bound it."""
        stored = self._current(metadata)
        if stored is None or stored.object["metadata"].get("deletionTimestamp"):
            return None
        return None if stored.object["spec"].get("nodeName") else stored

    def _refuse(self, stored: Stored, problem: str) -> None:
        after = stored.copy()
        set_scheduled(after["status"], problem)
        self._store.replace("pods", stored, after)
        self.events.record(after, SCHEDULER, "Warning", "FailedScheduling", problem)

    def _bind(self, stored: Stored) -> None:
        after = stored.copy()
        after["spec"]["nodeName"] = NODE
        set_scheduled(after["status"], "")
        # Known before it is stored: its own change must find the worker.
        self._take(after)
        self._store.replace("pods", stored, after)
        where = f"{after['metadata']['namespace']}/{after['metadata']['name']}"
        said = f"Successfully assigned {where} to {NODE}"
        self.events.record(after, SCHEDULER, "Normal", "Scheduled", said)

    def _take(self, pod: Object) -> None:
        """Run a pod that is bound to this node."""
        worker = self._worker(pod, self._folders.of(pod))
        self._workers[pod["metadata"]["uid"]] = worker
        task = asyncio.get_running_loop().create_task(self._run(pod, worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _worker(self, pod: Object, folder: Path) -> PodWorker | PlayedPod:
        if self._play is None:
            return PodWorker(pod, folder, self)
        return PlayedPod(pod, folder, self, self._play)

    async def _run(self, pod: Object, worker: PodWorker | PlayedPod) -> None:
        metadata = pod["metadata"]
        try:
            await worker.run()
        except Exception:
            # One pod's trouble must not end the node, nor leave its processes.
            log.exception("pod %s/%s", metadata["namespace"], metadata["name"])
            worker.kill()
        finally:
            self._workers.pop(metadata["uid"], None)
            if self._current(metadata) is None:
                self._folders.gone(pod)
            else:
                self._remove(metadata)
            self._fill()

    def _remove(self, metadata: Object) -> None:
        """The second step of a deletion: its containers have ended."""
        stored = self._current(metadata)
        if stored is not None and stored.object["metadata"].get("deletionTimestamp"):
            finalizers.remove(self._store, "pods", stored)

    def _current(self, metadata: Object) -> Stored | None:
        found = self._store.find("pods", metadata["namespace"], metadata["name"])
        return found if found and found.object["metadata"]["uid"] == metadata["uid"] else None


def _misfit(spec: Object) -> str:
    """Why the node can never take such a pod; "" when it can."""
    selector = spec.get("nodeSelector") or {}
    if any(_LABELS.get(name) != value for name, value in selector.items()):
        return (
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. "
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
    return ""


def _description(max_pods: int) -> Object:
    capacity = {"pods": str(max_pods)}
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": NODE, "labels": dict(_LABELS)},
        "spec": {},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        },
    }
