"""The cluster's single node, and the scheduler that fills it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from kbroker.local.cluster.events import Events
from kbroker.local.cluster.kubelet import PodWorker
from kbroker.local.cluster.processes import Processes
from kbroker.local.cluster.report import ENDED, Report, set_scheduled
from kbroker.local.cluster.store import Change, Object, Store, Stored

log = logging.getLogger(__name__)

NODE = "local"
_LABELS = {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}
_FULL = (
    "0/1 nodes are available: 1 Too many pods. "
    "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
)


class Node:
    """Runs every pod that it has room for.

    Args:
        store: where pods come from and statuses go.
        folder: logs and working folders of all pods.
        max_pods: pods at once that have not ended; others wait.
        crash_backoff: seconds before the first restart of a container; doubled for each more.
    """

    def __init__(self, store: Store, folder: Path, max_pods: int, crash_backoff: float) -> None:
        self.processes = Processes()
        self.crash_backoff = crash_backoff
        self._store = store
        self._folder = folder
        self._max_pods = max_pods
        self._events = Events(store, NODE)
        self._workers: dict[str, PodWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fresh: list[Object] = []
        self._queue: dict[str, Object] = {}  # uid → metadata of what waits for room
        store.create("nodes", _description(max_pods))
        self._stop_listening = store.listen("pods", self._on_change)

    async def start(self) -> None:
        """Get ready to run pods."""
        await self.processes.open()

    async def stop(self) -> None:
        """Kill every process."""
        self._stop_listening()
        await self.processes.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def log_file(self, pod: Object, container: str) -> Path:
        """Where a container's output is."""
        return self._pod_folder(pod["metadata"]) / f"{container}.log"

    def publish(self, pod: Object, report: Report) -> Object | None:
        """Write a pod's status; the pod as it stands, None once it is gone."""
        stored = self._current(pod["metadata"])
        if stored is None:
            return None
        if stored.object["status"]["phase"] in ENDED:
            return stored.object  # an ended pod never changes its mind
        after = stored.copy()
        report.write(after["status"])
        return self._store.replace("pods", stored, after).object

    def record(self, pod: Object, kind: str, reason: str, message: str) -> None:
        """Write an event about a pod."""
        self._events.record(pod, kind, reason, message)

    def find(self, namespace: str, resource: str, name: str) -> Object | None:
        """A secret or config map."""
        found = self._store.find(resource, namespace, name)
        return None if found is None else found.object

    def _on_change(self, change: Change) -> None:
        metadata = change.now.object["metadata"]
        uid = metadata["uid"]
        if change.type == "ADDED":
            # Afterwards, so that its creator sees it unscheduled, as with a real scheduler.
            if not self._fresh:
                asyncio.get_running_loop().call_soon(self._schedule_fresh)
            self._fresh.append(metadata)
        elif change.type == "DELETED":
            self._queue.pop(uid, None)
            worker = self._workers.get(uid)
            if worker is not None:
                worker.kill()
        elif uid in self._workers:
            self._workers[uid].update(change.now.object)

    def _schedule_fresh(self) -> None:
        fresh, self._fresh = self._fresh, []
        for metadata in fresh:
            stored = self._current(metadata)
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
            stored = self._current(self._queue.pop(uid))
            if stored is not None:
                self._bind(stored)

    def _refuse(self, stored: Stored, problem: str) -> None:
        after = stored.copy()
        set_scheduled(after["status"], problem)
        self._store.replace("pods", stored, after)
        self.record(after, "Warning", "FailedScheduling", problem)

    def _bind(self, stored: Stored) -> None:
        after = stored.copy()
        after["spec"]["nodeName"] = NODE
        set_scheduled(after["status"], "")
        metadata = after["metadata"]
        # Known before it is stored: its own change must find the worker.
        worker = PodWorker(after, self._pod_folder(metadata), self)
        self._workers[metadata["uid"]] = worker
        self._store.replace("pods", stored, after)
        where = f"{metadata['namespace']}/{metadata['name']}"
        self.record(after, "Normal", "Scheduled", f"Successfully assigned {where} to {NODE}")
        task = asyncio.get_running_loop().create_task(self._run(metadata, worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, metadata: Object, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:
            # One pod's trouble must not end the node, nor leave its processes.
            log.exception("pod %s/%s", metadata["namespace"], metadata["name"])
            worker.kill()
        finally:
            self._workers.pop(metadata["uid"], None)
            # The second step of a deletion: its containers have ended.
            stored = self._current(metadata)
            if stored is not None and stored.object["metadata"].get("deletionTimestamp"):
                self._store.remove("pods", stored)
            self._fill()

    def _current(self, metadata: Object) -> Stored | None:
        found = self._store.find("pods", metadata["namespace"], metadata["name"])
        return found if found and found.object["metadata"]["uid"] == metadata["uid"] else None

    def _pod_folder(self, metadata: Object) -> Path:
        folder = self._folder / str(metadata["namespace"]) / str(metadata["name"])
        return folder / str(metadata["uid"])


def _misfit(spec: Object) -> str:
    """Why the node can never take such a pod; "" when it can."""
    if spec["schedulerName"] != "default-scheduler":
        return f"0/1 nodes are available: no scheduler is named {spec['schedulerName']!r}."
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
