"""An API server and a node: pods, requests on their way, and a log of what happened.

Requests of launchers wait here until they are told to arrive or to be answered, in any
order. The admission policy is installed: a create that comes too late is refused
(docs/architecture.md names what can happen without it).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from kbroker import naming
from kbroker.kube_client import ApiError
from kbroker.pod import Pod, seconds
from kbroker.retry import ApiFailure
from kbroker.task import Attempt, Launch
from tests.unit.executor_model.virtual_time import Clock

STARTED_AT = "2026-01-01T00:00:00Z"


@dataclass
class Stored:
    """A pod as the API server has it, and what its node knows beyond that."""

    name: str
    uid: str
    annotations: dict[str, str]
    labels: dict[str, str]
    attempt: Attempt
    created: str
    finalizers: list[str]
    version: int = 0
    node: bool = False
    phase: str = "Pending"
    reason: str = ""
    terminating: bool = False
    only_held: bool = False  # deleted, and its finalizers keep it
    deadline: bool = False
    ran: bool = False  # its container has started, whether or not the API server knows
    shown_running: bool = False

    @property
    def finished(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    def encode(self) -> bytes:
        """As JSON."""
        metadata = {
            "name": self.name,
            "namespace": "default",
            "uid": self.uid,
            "resourceVersion": str(self.version),
            "annotations": self.annotations,
            "labels": self.labels,
            "creationTimestamp": self.created,
            "finalizers": self.finalizers,
        }
        if self.terminating:
            metadata["deletionTimestamp"] = STARTED_AT
            metadata["deletionGracePeriodSeconds"] = 0 if self.only_held else 30
        status: dict[str, Any] = {"phase": self.phase}
        if self.reason:
            status["reason"] = self.reason
        state = self._container()
        if state:
            status["containerStatuses"] = [{"name": "base", "state": state, "containerID": "c"}]
        spec = {"nodeName": "node"} if self.node else {}
        return orjson.dumps({"metadata": metadata, "spec": spec, "status": status})

    def _container(self) -> dict[str, Any]:
        if self.finished and self.ran:
            code = 0 if self.phase == "Succeeded" else 1
            return {"terminated": {"exitCode": code, "startedAt": STARTED_AT}}
        return {"running": {"startedAt": STARTED_AT}} if self.shown_running else {}


@dataclass(eq=False)
class Request:
    """One request of a launcher."""

    kind: str
    name: str
    act: Callable[[], bytes | ApiError]
    future: asyncio.Future[bytes]
    reply: bytes | ApiError | None = None

    @property
    def arrived(self) -> bool:
        return self.reply is not None

    @property
    def heard(self) -> bool:
        """Whether somebody still waits for the answer."""
        return not self.future.done()


@dataclass
class Refusal:
    """What the API server says to every create for the time being."""

    status: int
    message: str


QUOTA = Refusal(403, "pods is forbidden: exceeded quota: q, requested: pods=1")
FOR_GOOD = Refusal(400, "the pod is not valid")
BUSY = Refusal(500, "etcdserver: request timed out")


@dataclass
class Cluster:
    """The API server, and its one node."""

    clock: Clock
    on_delete: Callable[[Stored], None] = lambda _pod: None
    pods: dict[str, Stored] = field(default_factory=dict)
    log: list[tuple[str, Pod]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    refusal: Refusal | None = None
    prompt: bool = False  # every request is answered at once
    version: int = 100
    starts: dict[Launch, list[str]] = field(default_factory=lambda: defaultdict(list))
    succeeded: set[Launch] = field(default_factory=set)

    # What launchers and the watcher call; see `kbroker.kube_client.KubeClient`.

    async def create_pod(
        self, _namespace: str, manifest: bytes, timeout: float | None = None
    ) -> bytes:
        pod = orjson.loads(manifest)
        name = pod["metadata"]["name"]
        return await self._request("create", name, lambda: self._create(pod), timeout)

    async def get_pod(self, _namespace: str, name: str) -> bytes:
        def act() -> bytes | ApiError:
            pod = self.pods.get(name)
            return failure(404, "NotFound") if pod is None else pod.encode()

        return await self._request("get", name, act)

    async def delete_pod(
        self,
        _namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: int | None = None,
        grace: int | None = None,
    ) -> None:
        def act() -> bytes | ApiError:
            pod, problem = self._meant(name, uid, resource_version)
            if pod is not None:
                self.on_delete(pod)
                self.delete(pod)
            return problem or b"{}"

        await self._request("delete", name, act)

    async def release_pod(
        self, _namespace: str, name: str, *, uid: str, resource_version: int | None = None
    ) -> bytes:
        def act() -> bytes | ApiError:
            pod, problem = self._meant(name, uid, resource_version)
            if pod is None:
                assert problem is not None
                return problem
            if naming.FINALIZER in pod.finalizers:
                self.on_delete(pod)
                pod.finalizers = []
                self._changed("MODIFIED", pod)
                if pod.only_held:
                    self._gone(pod)
            return pod.encode()

        return await self._request("release", name, act)

    async def patch_pod(self, _namespace: str, name: str, patch: dict[str, Any]) -> bytes:
        asked = patch["metadata"]
        assert patch["spec"] == {"activeDeadlineSeconds": 1}

        def act() -> bytes | ApiError:
            pod, problem = self._meant(name, asked["uid"], int(asked["resourceVersion"]))
            if pod is not None:
                pod.deadline = True
                self._changed("MODIFIED", pod)
            return problem or b"{}"

        return await self._request("patch", name, act)

    async def _request(
        self,
        kind: str,
        name: str,
        act: Callable[[], bytes | ApiError],
        timeout: float | None = None,
    ) -> bytes:
        if self.prompt:
            return self._result(act())
        request = Request(kind, name, act, asyncio.get_running_loop().create_future())
        self.requests.append(request)
        try:
            async with asyncio.timeout(timeout or 10.0):
                return await request.future
        except TimeoutError:
            raise failure(0, "timeout") from None

    @staticmethod
    def _result(reply: bytes | ApiError) -> bytes:
        if isinstance(reply, ApiError):
            raise reply
        return reply

    # What becomes of a request.

    def arrive(self, request: Request) -> None:
        """The API server carries it out."""
        if not request.arrived:
            request.reply = request.act()
        if not request.heard:
            self.requests.remove(request)

    def answer(self, request: Request) -> None:
        """Its launcher gets the answer."""
        self.arrive(request)
        if request not in self.requests:
            return
        self.requests.remove(request)
        assert request.reply is not None
        if isinstance(request.reply, ApiError):
            request.future.set_exception(request.reply)
        else:
            request.future.set_result(request.reply)

    def reset(self, request: Request) -> None:
        """The connection breaks; a request that has not arrived may still do so."""
        if request.heard:
            request.future.set_exception(failure(0, "reset"))
        if request.arrived:
            self.requests.remove(request)

    def creating(self, name: str) -> bool:
        """Whether a create of this name is on its way."""
        return any(r.kind == "create" and r.name == name and not r.arrived for r in self.requests)

    # What it does with them.

    def _create(self, manifest: dict[str, Any]) -> bytes | ApiError:
        metadata = manifest["metadata"]
        annotations, name = metadata["annotations"], metadata["name"]
        if self.refusal is not None:
            return failure(self.refusal.status, self.refusal.message)
        if self.clock() > (seconds(annotations[naming.CREATE_BEFORE]) or 0):
            return failure(422, "ValidatingAdmissionPolicy 'kbroker-create-before' denied request")
        if name in self.pods:
            return failure(409, "AlreadyExists")
        attempt = naming.attempt_from_annotations(annotations)
        assert attempt is not None
        uid = f"uid-{self.version + 1}"
        created = datetime.fromtimestamp(self.clock(), UTC).isoformat()
        labels, finalizers = metadata["labels"], metadata["finalizers"]
        pod = Stored(name, uid, annotations, labels, attempt, created, finalizers)
        self.pods[name] = pod
        self._changed("ADDED", pod)
        return pod.encode()

    def _meant(
        self, name: str, uid: str, version: int | None
    ) -> tuple[Stored | None, ApiError | None]:
        pod = self.pods.get(name)
        if pod is None:
            return None, failure(404, "NotFound")
        if pod.uid != uid or version not in (None, pod.version):
            return None, failure(409, "Conflict")
        return pod, None

    def delete(self, pod: Stored, *, force: bool = False) -> None:
        """At once where no container can run, else when the node has ended it."""
        if force or pod.finished or not pod.node:
            self._remove(pod)
        elif not pod.terminating:
            pod.terminating = True
            self._changed("MODIFIED", pod)

    def _remove(self, pod: Stored) -> None:
        """Unless finalizers hold it."""
        if not pod.finalizers:
            self._gone(pod)
        elif not pod.only_held:
            pod.terminating = pod.only_held = True
            self._changed("MODIFIED", pod)

    def _gone(self, pod: Stored) -> None:
        del self.pods[pod.name]
        self._changed("DELETED", pod)

    def _changed(self, kind: str, pod: Stored) -> None:
        self.version += 1
        pod.version = self.version
        self.log.append((kind, Pod.decode(pod.encode())))

    # The node.

    def bind(self, pod: Stored) -> None:
        if not pod.node and not pod.terminating:
            pod.node = True
            self._changed("MODIFIED", pod)

    def start(self, pod: Stored) -> None:
        """The container starts; the API server does not know yet."""
        if pod.node and not pod.ran and not pod.finished:
            pod.ran = True
            self.starts[pod.attempt.launch].append(pod.uid)

    def show(self, pod: Stored) -> None:
        """The node tells that it runs."""
        if pod.ran and not pod.finished and not pod.shown_running:
            pod.phase, pod.shown_running = "Running", True
            self._changed("MODIFIED", pod)

    def end(self, pod: Stored, *, well: bool, reason: str = "") -> None:
        """It ends; a container that did not start cannot end well."""
        if not pod.node or pod.finished:
            return
        if well and not pod.ran:
            return
        pod.phase, pod.reason = ("Succeeded" if well else "Failed"), reason
        if well:
            self.succeeded.add(pod.attempt.launch)
        self._changed("MODIFIED", pod)

    def obey(self, pod: Stored) -> None:
        """The node does what the pod's object asks for."""
        if pod.node and not pod.finished and (pod.terminating or pod.deadline):
            self.end(pod, well=False, reason="" if pod.terminating else "DeadlineExceeded")
        if pod.terminating:
            self._remove(pod)


def failure(status: int, reason: str) -> ApiError:
    """An answer that is a failure; status 0 is no answer."""
    return ApiError(ApiFailure(status, reason, reason))
