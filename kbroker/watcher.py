"""The watch loop: Kubernetes' list and watch in, pod events out.

It only reads from Kubernetes. Events are put into the watcher's queue: in
production the `EventPublisher`, whose scripts let only the holder of the lease
write; else anything with `put`, such as a `queue.Queue`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from kbroker import naming
from kbroker.event import PodEvent, Started, vanished
from kbroker.event_sink import EventSink, QueueSink
from kbroker.kube_client import ApiError, KubeClient
from kbroker.kube_config import KubeConfig
from kbroker.pod import Pod
from kbroker.pod_status import DELETED, pod_event
from kbroker.pod_table import PodTable
from kbroker.reflector import GONE, Reflector
from kbroker.retry import ApiFailure
from kbroker.settings import KubernetesSettings
from kbroker.task import Attempt

log = logging.getLogger(__name__)

# Pods without our identity that are named in the log, until the next list.
_STRANGERS = 1000


class KubernetesJobWatcher:
    """Watches the pods of one installation in one namespace.

    Args:
        namespace: which one.
        watcher_queue: gets the pod events: an `EventSink`, or anything with `put`.
        resource_version: everything up to it is known already; None or "0" to list first.
        worker_uuid: names this watcher.
        config: the configuration; read from the environment by default.
        kube: a client to use; by default one is connected, and closed at the end.
        connect: connects a client.
        selector: label selector; by default that of the installation's pods.
        clock: seconds since the epoch.

    Attributes:
        resource_version: everything up to it has been put; None before the first list.
        table: the pods that exist, as far as the watch has told.
        strangers: how many pods matched the selector and were not ours.
    """

    def __init__(
        self,
        namespace: str,
        watcher_queue: Any,
        resource_version: str | None,
        worker_uuid: str,
        *,
        config: KubeConfig | None = None,
        kube: KubeClient | None = None,
        connect: Callable[[KubernetesSettings], Awaitable[KubeClient]] = KubeClient.connect,
        selector: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.namespace = namespace
        self.watcher_queue = watcher_queue
        self.resource_version = resource_version
        self.worker_uuid = worker_uuid
        self.config = config or KubeConfig.load()
        self.table = PodTable()
        self.strangers = 0
        self._kube = kube
        self._connect = connect
        self._deployment = self.config.core.deployment
        self._selector = selector or naming.deployment_selector(self._deployment)
        self._clock = clock
        self._sink = (
            watcher_queue if isinstance(watcher_queue, EventSink) else QueueSink(watcher_queue)
        )
        self._unlisted: dict[str, PodEvent] = {}
        self._named: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Watch until `stop`; whatever happens to connections, it resumes.

        Raises:
            ClusterError: there is no usable kubeconfig or account.
            LeaseLostError: the queue may not be written to any more.
            BrokerUnavailableError: the queue cannot be written to now.
        """
        asyncio.run(self._until_stopped())

    def stop(self) -> None:
        """End `run`, from another thread or a signal handler."""
        if self._loop is not None and self._watching is not None:
            self._loop.call_soon_threadsafe(self._watching.cancel)

    async def _until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watching = asyncio.ensure_future(self.watch())
        await asyncio.wait([self._watching])
        if not self._watching.cancelled():
            self._watching.result()

    async def watch(self) -> None:
        """The same on a running event loop; ends by cancelling, or as `run` raises."""
        kube = self._kube or await self._connect(self.config.kubernetes)
        try:
            reflector = await self._reflector(kube)
            version: str | None = self.resource_version
            while True:
                version = await self._run(reflector, version)
        finally:
            if kube is not self._kube:
                await kube.close()

    async def list_once(self, kube: KubeClient) -> int:
        """Put everything that exists, and what vanished, once; the list's version.

        Raises:
            ApiError: the API server does not answer, or refuses.
        """
        return await (await self._reflector(kube)).list_all()

    async def _reflector(self, kube: KubeClient) -> Reflector:
        self._kube_now = kube
        progress = await self._sink.progress()
        for event in (await self._sink.picture()).values():
            self.table.note(event, "", self._clock())
        return Reflector(
            kube,
            self.namespace,
            self._selector,
            self,
            self.config.watcher,
            floor=max(progress.checkpoint or 0, progress.listed),
        )

    async def _run(self, reflector: Reflector, resource_version: str | None) -> str | None:
        """One list, where necessary, and one watch; returns the version to go on from."""
        version = await reflector.cycle(int(resource_version or 0) or None)
        return None if version is None else str(version)

    # What the API server says.

    def process_error(self, event: Mapping[str, Any]) -> str:
        """Judge an ERROR event, which ends a watch.

        Args:
            event: with the Status as "object" (or "raw_object").

        Returns:
            "0", which asks for a list, when the server has forgotten the version (410).

        Raises:
            ApiError: any other failure; the watch resumes where it was.
        """
        found = event.get("raw_object") or event.get("object")
        status = found if isinstance(found, Mapping) else {}
        code = status.get("code")
        reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
        if code == GONE or reason in ("Expired", "Gone"):
            return "0"
        number = code if isinstance(code, int) else 0
        raise ApiError(
            ApiFailure(number, reason, message or f"the watch failed: {number} {reason}")
        )

    def process_status(self, event_type: str, pod: Pod) -> None:
        """Put the pod event that a watch event means, if it is one of ours."""
        event = self._event(event_type, pod)
        if event is not None:
            self._put(event_type, pod, event)

    def _event(self, event_type: str, pod: Pod) -> PodEvent | None:
        attempt = self._attempt(pod)
        if attempt is None:
            return None
        return pod_event(event_type, pod, attempt, self.config.kubernetes.cluster)

    def _put(self, event_type: str, pod: Pod, event: PodEvent) -> None:
        if event_type == DELETED:
            self.table.drop(event.pod)
            self._sink.put(event, gone=True)
        else:
            self.table.note(event, pod.annotations.get(naming.EXECUTOR, ""), self._clock())
            self._sink.put(event)

    def _attempt(self, pod: Pod) -> Attempt | None:
        """Whose pod this is; None, said once, if it does not carry our identity."""
        known = self.table.last(pod.name, pod.uid)
        if known is not None:
            return known.attempt
        attempt = naming.attempt_from_annotations(pod.annotations)
        if (
            attempt is not None
            and attempt.launch.deployment == self._deployment
            # A copy of one of our pods is not ours.
            and pod.name == naming.pod_name(attempt)
        ):
            return attempt
        if pod.uid not in self._named and len(self._named) < _STRANGERS:
            self._named.add(pod.uid)
            self.strangers += 1
            log.warning(
                "pod %s/%s matches our labels and is none of ours: left alone",
                pod.namespace,
                pod.name,
                extra={"action": "stranger", "pod": pod.name},
            )
        return None

    # The reflector's calls, in the order of its contract.

    async def relisting(self, new_generation: bool) -> None:
        """A list begins."""
        await self._sink.relisting(new_generation)
        self._unlisted = await self._sink.picture()
        self._named.clear()

    async def page(self, pods: Sequence[Pod]) -> None:
        """Put these; what had their names before, and is gone, goes first."""
        for pod in pods:
            event = self._event("ADDED", pod)
            if event is None:
                continue
            known = self._unlisted.pop(event.pod, None)
            if known is not None and known.uid != event.uid:
                self._vanish(known, event.resource_version)
            self._put("ADDED", pod, event)
        await self._sink.flush()

    async def listed(self, version: int) -> None:
        """What was in the picture and on no page is gone."""
        for event in self._unlisted.values():
            self._vanish(event, version)
        self._unlisted = {}
        await self._sink.flush()
        await self._sink.synced(version)
        self.resource_version = str(version)
        log.info(
            "listed %d pods at version %d",
            len(self.table),
            version,
            extra={"action": "listed", "pods": len(self.table), "version": version},
        )

    def _vanish(self, last: PodEvent, version: int) -> None:
        self.table.drop(last.pod)
        self._sink.put(last if last.final else vanished(last, version), gone=True)

    async def events(self, events: Sequence[tuple[str, Pod]]) -> None:
        """Put what one read of the watch gave, in one step."""
        unbound = [pod for kind, pod in events if kind == DELETED and pod.node is None]
        existing = await self._existing(unbound) if unbound else ()
        for kind, pod in events:
            event = self._event(kind, pod)
            if event is None:
                continue
            if kind != DELETED and self._says_nothing(event):
                self.table.note(event, "", self._clock())
                continue
            if pod.uid in existing:
                event = event.changed(
                    started=Started.UNKNOWN,
                    message=f"pod {pod.name} lost its kbroker labels and is out of sight",
                )
            self._put(kind, pod, event)
        await self._sink.flush()
        self.resource_version = str(events[-1][1].resource_version)

    def _says_nothing(self, event: PodEvent) -> bool:
        """Whether only the version is new: kubelets and others write much that is not for us."""
        known = self.table.last(event.pod, event.uid or "")
        return known is not None and known.news == event.news

    async def bookmark(self, version: int) -> None:
        """The watch is up to date."""
        await self._sink.checkpoint(version)
        self.resource_version = str(version)

    async def _existing(self, pods: Sequence[Pod]) -> frozenset[str]:
        """The uids of those that are only out of sight."""
        exist = await asyncio.gather(*map(self._still_exists, pods))
        return frozenset(pod.uid for pod, exists in zip(pods, exist, strict=True) if exists)

    async def _still_exists(self, pod: Pod) -> bool:
        """Whether a pod is only out of sight.

        DELETED also says that an object does not match the selector any more
        (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
        For a pod without a node it would be taken as proof that it never starts.
        """
        try:
            present = await self._kube_now.get_pod(pod.namespace, pod.name)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return Pod.decode(present).uid == pod.uid
