"""The cluster's single node, and the scheduler that fills it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path

from kbroker.local.cluster.kubelet import PodWorker, set_scheduled
from kbroker.local.cluster.store import Change, Object, Store, Stored, timestamp

log = logging.getLogger(__name__)

NODE = "local"
_EVENTS_KEPT = 2000


class Node:
    """Runs every pod that it has room for.

    Args:
        store: where pods come from and statuses go.
        folder: logs and working folders of all pods.
        max_pods: pods at once that have not ended; others wait.
    """

    def __init__(self, store: Store, folder: Path, max_pods: int) -> None:
        self._store = store
        self._folder = folder
        self._max_pods = max_pods
        self._workers: dict[str, PodWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: OrderedDict[str, Stored] = OrderedDict()
        self._events: deque[str] = deque()
        store.create(
            "nodes",
            {
                "kind": "Node",
                "apiVersion": "v1",
                "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
                "spec": {},
                "status": {
                    "phase": "Ready",
                    "capacity": {"pods": str(max_pods)},
                    "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
                },
            },
        )
        self._stop_listening = store.listen(self._on_change)

    def log_file(self, pod: Object, container: str) -> Path:
        """Where a container's output is."""
        return self._pod_folder(pod) / f"{container}.log"

    async def stop(self) -> None:
        """Kill every process."""
        self._stop_listening()
        for worker in self._workers.values():
            worker.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_change(self, change: Change) -> None:
        if change.resource != "pods":
            return
        pod = change.now.object
        uid = pod["metadata"]["uid"]
        if change.type == "ADDED":
            self._waiting[uid] = change.now
            asyncio.get_running_loop().call_soon(self._schedule, uid)
        elif change.type == "DELETED":
            self._waiting.pop(uid, None)
            worker = self._workers.get(uid)
            if worker is not None:
                worker.kill()
        elif uid in self._waiting:
            self._waiting[uid] = change.now
        elif uid in self._workers:
            self._workers[uid].update(pod)

    def _schedule(self, uid: str) -> None:
        """Bind a pod that waits, or say why not."""
        stored = self._waiting.get(uid)
        if stored is None:
            return
        present = self._current(stored.object["metadata"])
        if present is None:
            self._waiting.pop(uid, None)
            return
        problem = self._problem(present.object)
        if problem:
            self._refuse(present, problem)
        else:
            self._waiting.pop(uid, None)
            self._bind(present)

    def _fill(self) -> None:
        """There is room again: bind what waits, in order."""
        for uid in list(self._waiting):
            if len(self._workers) >= self._max_pods:
                return
            self._schedule(uid)

    def _problem(self, pod: Object) -> str:
        spec = pod["spec"]
        if spec["schedulerName"] != "default-scheduler":
            return f"no scheduler named {spec['schedulerName']}"
        labels = {"kubernetes.io/hostname": NODE}
        selector = spec.get("nodeSelector") or {}
        if any(labels.get(name) != value for name, value in selector.items()):
            return (
                "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. "
                "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
            )
        if len(self._workers) >= self._max_pods:
            return (
                "0/1 nodes are available: 1 Too many pods. "
                "preemption: 0/1 nodes are available: 1 No preemption victims found."
            )
        return ""

    def _refuse(self, stored: Stored, problem: str) -> None:
        after = stored.copy()
        before = after["status"].get("conditions")
        if before and before[0].get("message") == problem:
            return
        set_scheduled(after["status"], problem)
        self._store.replace("pods", stored, after)
        self._record(after, "Warning", "FailedScheduling", problem)

    def _bind(self, stored: Stored) -> None:
        after = stored.copy()
        after["spec"]["nodeName"] = NODE
        set_scheduled(after["status"], "")
        metadata = after["metadata"]
        uid = metadata["uid"]
        # Known before it is stored: its own change must find the worker.
        worker = PodWorker(
            after, self._pod_folder(after), self._publisher(metadata), self._recorder(after)
        )
        self._workers[uid] = worker
        self._store.replace("pods", stored, after)
        where = f"{metadata['namespace']}/{metadata['name']}"
        self._record(after, "Normal", "Scheduled", f"Successfully assigned {where} to {NODE}")
        task = asyncio.get_running_loop().create_task(self._run(metadata, worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, metadata: Object, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:
            log.exception("pod %s", metadata["name"])
        finally:
            self._workers.pop(metadata["uid"], None)
            stored = self._current(metadata)
            if stored is not None and stored.object["metadata"].get("deletionTimestamp"):
                # The second step of a deletion: its containers have ended.
                self._store.remove("pods", stored)
            self._fill()

    def _current(self, metadata: Object) -> Stored | None:
        found = self._store.find("pods", metadata["namespace"], metadata["name"])
        return found if found and found.object["metadata"]["uid"] == metadata["uid"] else None

    def _publisher(self, metadata: Object) -> Callable[[Callable[[Object], None]], Object | None]:
        def publish(describe: Callable[[Object], None]) -> Object | None:
            stored = self._current(metadata)
            if stored is None:
                return None
            after = stored.copy()
            describe(after["status"])
            return self._store.replace("pods", stored, after).object

        return publish

    def _recorder(self, pod: Object) -> Callable[[str, str, str], None]:
        return lambda kind, reason, message: self._record(pod, kind, reason, message)

    def _record(self, pod: Object, kind: str, reason: str, message: str) -> None:
        """Write an event; only the newest are kept."""
        metadata = pod["metadata"]
        namespace = metadata["namespace"]
        if self._store.find("namespaces", "", namespace) is None:
            return
        now = timestamp()
        name = f"{metadata['name'][:200]}.{self._store.version:x}"
        self._store.create(
            "events",
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {
                    "kind": "Pod",
                    "apiVersion": "v1",
                    "namespace": namespace,
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
                "type": kind,
                "reason": reason,
                "message": message,
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": {"component": "local-cluster", "host": NODE},
            },
        )
        self._events.append(f"{namespace}/{name}")
        while len(self._events) > _EVENTS_KEPT:
            namespace, _, name = self._events.popleft().partition("/")
            stale = self._store.find("events", namespace, name)
            if stale is not None:
                self._store.remove("events", stale)

    def _pod_folder(self, pod: Object) -> Path:
        metadata = pod["metadata"]
        names = (str(metadata[part]) for part in ("namespace", "name", "uid"))
        return self._folder.joinpath(*names)
