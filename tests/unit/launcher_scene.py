"""A Kubernetes API that answers as told, a clock that moves when somebody sleeps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import orjson

from kbroker.api_calls import ApiCalls
from kbroker.errors import ClusterError
from kbroker.kube_client import ApiError
from kbroker.launch_reply import Refused
from kbroker.launcher_identity import LauncherIdentity
from kbroker.manifests import Manifests
from kbroker.message import DeleteMessage, LaunchMessage, SecretMessage
from kbroker.naming import annotations_for, pod_name
from kbroker.pace import Lane
from kbroker.permission import Permission
from kbroker.pod_creation import PodCreation
from kbroker.pod_removal import PodRemoval
from kbroker.retry import ApiFailure
from kbroker.settings import KubernetesSettings, LauncherSettings
from kbroker.task import Attempt, Launch, TaskKey
from kbroker.work_item import WorkItem

ATTEMPT = Launch("prod", TaskKey("dag", "task", "run-1"), "launch-1").attempt(1)
NAME = pod_name(ATTEMPT)
NOW = 1_800_000_000_000  # ms by Redis' clock when a scene begins
WINDOW = 30.0

Answer = bytes | ApiError | Callable[[], Any]


class Clock:
    """Monotonic seconds that pass only while somebody sleeps or a request takes time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Kube:
    """Answers each kind of request from its own list; the last answer is repeated."""

    def __init__(self, clock: Clock, **answers: list[Answer]) -> None:
        self.clock = clock
        self.answers = answers
        self.requests: list[tuple[str, Any]] = []
        self.took = 0.0
        self.denied: list[str] = []  # what the checks of the credentials answer, in order
        self.reloads = 0

    async def create_pod(
        self, namespace: str, manifest: bytes, timeout: float | None = None
    ) -> bytes:
        await asyncio.sleep(0)  # others send theirs before this one is answered
        return self._answer("create", (namespace, orjson.loads(manifest), timeout))

    async def get_pod(self, namespace: str, name: str) -> bytes:
        return self._answer("get", (namespace, name))

    async def delete_pod(
        self,
        namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: int | None = None,
        grace: int | None = None,
    ) -> None:
        self._answer("delete", {"name": name, "uid": uid, "version": resource_version})

    async def release_pod(
        self, namespace: str, name: str, *, uid: str, resource_version: int | None = None
    ) -> bytes:
        return self._answer("release", {"name": name, "uid": uid, "version": resource_version})

    async def patch_pod(self, namespace: str, name: str, patch: dict[str, Any]) -> bytes:
        return self._answer("patch", patch)

    async def create_secret(self, namespace: str, manifest: dict[str, Any]) -> None:
        self._answer("create_secret", (namespace, manifest))

    async def get_secret(self, namespace: str, name: str) -> bytes:
        return self._answer("get_secret", (namespace, name))

    async def replace_secret(self, namespace: str, name: str, manifest: dict[str, Any]) -> None:
        self._answer("replace_secret", (namespace, name, manifest))

    async def reload_credentials(self) -> None:
        self.reloads += 1

    async def check_access(self, verb: str, resource: str, namespace: str) -> None:
        if verb == "create" and self.denied:
            problem = self.denied.pop(0)
            if problem:
                raise ClusterError(problem)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.requests]

    def asked(self, kind: str) -> list[Any]:
        return [what for k, what in self.requests if k == kind]

    def _answer(self, kind: str, what: Any) -> Any:
        self.requests.append((kind, what))
        self.clock.now += self.took
        answers = self.answers[kind]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = answer()
        if isinstance(answer, ApiError):
            raise answer
        return answer


class Pace:
    """The shared pace, without sharing it.

    Attributes:
        told: pauses that the API server asked for.
        asked: lanes in which a turn was waited for.
        closed: lanes in which none comes.
    """

    def __init__(self, clock: Clock, pause: float = 0.0) -> None:
        self.clock = clock
        self.until = clock.now + pause
        self.told: list[float | None] = []
        self.asked: list[Lane] = []
        self.closed: set[Lane] = set()
        self.complaints = 0
        self.finished = 0

    @property
    def pause(self) -> float:
        return max(0.0, self.until - self.clock.now)

    async def turn(self, lane: Lane, ends: float) -> bool:
        self.asked.append(lane)
        if lane in self.closed or self.until >= ends:
            return False
        if self.pause:
            await self.clock.sleep(self.pause)
        return True

    def done(self) -> None:
        self.finished += 1

    async def refused(self, seconds: float | None) -> None:
        self.told.append(seconds)
        self.until = max(self.until, self.clock.now + (seconds or 0.0))

    async def complain(self, seconds: float | None = None) -> None:
        self.complaints += 1


class Scene:
    """Creation and removal of pods against one scripted API."""

    def __init__(self, *, pause: float = 0.0, **answers: list[Answer]) -> None:
        self.clock = Clock()
        self.kube = Kube(self.clock, **answers)
        self.pace = Pace(self.clock, pause)
        self.settings = LauncherSettings()
        self.kubernetes = KubernetesSettings(image="img")
        self.rng = random.Random(1)
        self.identity = LauncherIdentity(
            self.kube, "default", self.settings, rng=self.rng, sleep=self.clock.sleep
        )
        self.calls = ApiCalls(
            self.settings,
            self.kubernetes.retry_budget,
            self.kubernetes.request_timeout,
            self.kubernetes.pool_size,
            pace=self.pace,
            identity=self.identity,
            rng=self.rng,
            monotonic=self.clock.monotonic,
            sleep=self.clock.sleep,
        )
        self.permissions: list[Permission | Refused] = []
        self.creation = PodCreation(
            self.kube,
            self.calls,
            Manifests(self.kubernetes),
            self.settings,
            ask=self._ask,
            rng=self.rng,
        )
        self.removal = PodRemoval(self.kube, self.calls, self.settings, rng=self.rng)

    def permission(self, window: float = WINDOW) -> Permission:
        now = NOW + int((self.clock.now - 1000.0) * 1000)
        return Permission(now + int(window * 1000), now, self.clock.now, self.clock.now + window)

    async def _ask(self, _message: LaunchMessage) -> Permission | Refused:
        return self.permissions.pop(0) if self.permissions else self.permission()


def launch_message(attempt: Attempt = ATTEMPT, **values: Any) -> LaunchMessage:
    fields = {
        "attempt": attempt,
        "executor_id": "exec-1",
        "cluster": "default",
        "namespace": "default",
        "command": ("secret-command",),
        "enqueued_at": NOW - 61_000,
    }
    return LaunchMessage(**{**fields, **values})


def delete_message(**values: Any) -> DeleteMessage:
    fields = {
        "deployment": "prod",
        "cluster": "default",
        "namespace": "default",
        "pod": NAME,
        "uid": "uid-1",
    }
    return DeleteMessage(**{**fields, **values})


def item(message: LaunchMessage | DeleteMessage | SecretMessage, **values: Any) -> WorkItem:
    body = message.as_dict()
    return WorkItem("1-1", "queue", body, orjson.dumps(body), **values)


def pod(attempt: Attempt | None = ATTEMPT, **values: Any) -> bytes:
    """A pod as the API server sends it."""
    annotations = {} if attempt is None else annotations_for(attempt, "exec-1")
    node = values.pop("node", None)
    container = values.pop("container", None)
    status: dict[str, Any] = {"phase": values.pop("phase", "Pending")}
    if container is not None:
        status["containerStatuses"] = [{"name": "base", "state": container}]
    metadata = {
        "name": NAME,
        "namespace": "default",
        "uid": values.pop("uid", "uid-1"),
        "resourceVersion": str(values.pop("version", 7)),
        "annotations": annotations,
        **values,
    }
    return orjson.dumps(
        {"metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": status}
    )


def error(
    status: int,
    message: str = "no",
    reason: str = "",
    *,
    retry_after: float | None = None,
    sent: bool = True,
) -> ApiError:
    """An answer that is a failure; status 0 is no answer."""
    return ApiError(ApiFailure(status, reason, message, retry_after, sent))


LOST = error(0, "Server disconnected", "reset")
REFUSED = error(0, "Connect call failed", "refused", sent=False)
EXISTS = error(409, f'pods "{NAME}" already exists', "AlreadyExists")
CONFLICT = error(409, "the UID in the precondition does not match", "Conflict")
NOT_FOUND = error(404, f'pods "{NAME}" not found', "NotFound")
QUOTA = error(
    403,
    f'pods "{NAME}" is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, '
    "limited: pods=5",
    "Forbidden",
)
RBAC = error(
    403,
    'pods is forbidden: User "x" cannot create resource "pods" in API group "" in the '
    'namespace "default"',
    "Forbidden",
)
UNAUTHORIZED = error(401, "Unauthorized", "Unauthorized")
LATE = error(
    422,
    f"pods \"{NAME}\" is forbidden: ValidatingAdmissionPolicy 'kbroker-create-before' with "
    "binding 'kbroker-create-before' denied request: creation time is past "
    "kbroker/create-before",
    "Invalid",
)
