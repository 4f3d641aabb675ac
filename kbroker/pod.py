"""A pod as far as kbroker looks at it: decoded partially, never into full models."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import msgspec

BASE = "base"  # the container that runs the task


class _Part(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Unknown fields are skipped while decoding, which is most of a pod."""

    if TYPE_CHECKING:  # as every object is true; to say so at run time costs a call each time

        def __bool__(self) -> Literal[True]:
            """A part that is there is true: `part and part.field` reads an optional one."""
            return True


class Running(_Part, frozen=True, rename="camel"):
    """A container that runs."""

    started_at: str | None = None


class Waiting(_Part, frozen=True, rename="camel"):
    """A container that has not started, or waits to start again."""

    reason: str | None = None
    message: str | None = None


class Terminated(_Part, frozen=True, rename="camel"):
    """A container that has ended."""

    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    signal: int | None = None
    started_at: str | None = None
    finished_at: str | None = None


class ContainerState(_Part, frozen=True, rename="camel"):
    """At most one of the three is set; none means waiting."""

    running: Running | None = None
    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Part, frozen=True, rename="camel"):
    """What the kubelet says about one container."""

    name: str = ""
    state: ContainerState | None = None
    last_state: ContainerState | None = None
    started: bool | None = None
    restart_count: int = 0
    container_id: str | None = msgspec.field(default=None, name="containerID")


class Condition(_Part, frozen=True, rename="camel"):
    """One of the pod's conditions."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None


class Metadata(_Part, frozen=True, rename="camel"):
    """Whose pod it is."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = "0"
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: list[str] | None = None


class InitContainer(_Part, frozen=True, rename="camel"):
    """An init container; with the restart policy Always it is a sidecar."""

    name: str = ""
    restart_policy: str | None = None


class Spec(_Part, frozen=True, rename="camel"):
    """Where it runs, and how it restarts."""

    node_name: str | None = None
    restart_policy: str | None = None
    init_containers: list[InitContainer] | None = None


class Status(_Part, frozen=True, rename="camel"):
    """What became of it."""

    phase: str | None = None
    reason: str | None = None
    message: str | None = None
    start_time: str | None = None
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None


class Pod(_Part, frozen=True, rename="camel"):
    """The partial view of one pod."""

    metadata: Metadata = Metadata()
    spec: Spec | None = None
    status: Status | None = None

    @property
    def name(self) -> str:
        """The pod's name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """The pod's uid."""
        return self.metadata.uid

    @property
    def annotations(self) -> dict[str, str]:
        """The pod's annotations."""
        return self.metadata.annotations or {}

    @property
    def resource_version(self) -> int:
        """The version of the object; 0 where it has none."""
        return int(self.metadata.resource_version or 0)

    @property
    def only_held(self) -> bool:
        """Whether it is deleted, and nothing but finalizers keeps the object.

        The API server would have removed it: its grace period is 0, as for a pod without a
        node, one that has ended, and one that was deleted by force.
        https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination-forced
        """
        metadata = self.metadata
        return bool(metadata.deletion_timestamp) and metadata.deletion_grace_period_seconds == 0

    @property
    def node(self) -> str | None:
        """The node that it is bound to."""
        return (self.spec and self.spec.node_name) or None

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded, Failed or Unknown."""
        return (self.status and self.status.phase) or "Pending"

    @classmethod
    def decode(cls, data: bytes) -> Pod:
        """Read a pod from JSON.

        Raises:
            ValueError: it is not one.
        """
        return _POD.decode(data)

    @classmethod
    def from_dict(cls, pod: dict[str, Any]) -> Pod:
        """The same from a dict.

        Raises:
            ValueError: it is not one.
        """
        return msgspec.convert(pod, cls)


# Pods of one time have their moments in common, and a pod's events repeat them.
@lru_cache(maxsize=1024)
def seconds(timestamp: str | None) -> float | None:
    """An RFC 3339 timestamp as seconds since the epoch.

    None for none, for an unreadable one, and for the epoch itself, which a kubelet
    writes where there was no such moment.
    """
    if not timestamp:
        return None
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    value = moment.timestamp() if moment.tzinfo is not None else 0.0
    return value if value > 0 else None


class ListMetadata(_Part, frozen=True, rename="camel"):
    """Where a page of a list stands."""

    resource_version: str = "0"
    continue_token: str | None = msgspec.field(default=None, name="continue")


class PodPage(_Part, frozen=True, rename="camel"):
    """One page of a list of pods."""

    metadata: ListMetadata = ListMetadata()
    items: tuple[Pod, ...] = ()

    @property
    def version(self) -> int:
        """The resource version of the whole list."""
        return int(self.metadata.resource_version)

    @classmethod
    def decode(cls, data: bytes) -> PodPage:
        """Read a page from JSON.

        Raises:
            ValueError: it is not one.
        """
        return _PAGE.decode(data)


class WatchLine(_Part, frozen=True, rename="camel"):
    """One line of a watch: the kind of event and the object, not yet decoded."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw

    @classmethod
    def decode(cls, line: bytes) -> WatchLine:
        """Read a line.

        Raises:
            ValueError: it is not a watch event.
        """
        return _LINE.decode(line)


class PodLine(_Part, frozen=True, rename="camel"):
    """One line of a watch that is about a pod, decoded at once."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Pod

    @classmethod
    def decode(cls, line: bytes) -> PodLine:
        """Read a line.

        Raises:
            ValueError: it is not a watch event, or not about a pod.
        """
        return _POD_LINE.decode(line)


class ApiStatus(_Part, frozen=True, rename="camel"):
    """The API server's own words about a failure: the object of kind Status."""

    status: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: dict[str, Any] = {}

    @classmethod
    def decode(cls, data: bytes) -> ApiStatus:
        """Read a Status from JSON; an empty one where the data is not one."""
        try:
            return _STATUS.decode(data)
        except msgspec.DecodeError:
            return cls()


_POD = msgspec.json.Decoder(Pod)
_PAGE = msgspec.json.Decoder(PodPage)
_LINE = msgspec.json.Decoder(WatchLine)
_POD_LINE = msgspec.json.Decoder(PodLine)
_STATUS = msgspec.json.Decoder(ApiStatus, strict=False)
