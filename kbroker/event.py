"""What happened to a pod: the value that travels from watcher and launchers to the executor."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec
import orjson

from kbroker.errors import KbrokerError, MessageError, NewerSchemaError
from kbroker.task import Attempt, Launch, LaunchName, TaskKey
from kbroker.value import Value

SCHEMA = 1


class PodState(StrEnum):
    """Where an attempt stands. The last two are final."""

    WAITING = "waiting"  # no pod yet: parked for quota, Retry-After, credentials
    PENDING = "pending"  # the pod exists, its base container has not started
    RUNNING = "running"  # the base container has started
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Started(StrEnum):
    """What is proven about the start of the attempt's containers."""

    NEVER = "never"  # proof that no container started: the launch may be repeated
    UNKNOWN = "unknown"
    YES = "yes"


class Cause(StrEnum):
    """Why an attempt failed, or waits."""

    ERROR = "error"
    OOM_KILLED = "oom_killed"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    NODE_LOST = "node_lost"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    IMAGE_PULL = "image_pull"
    CONFIG_ERROR = "config_error"
    INIT_FAILED = "init_failed"
    UNSCHEDULABLE = "unschedulable"
    PENDING_TIMEOUT = "pending_timeout"
    DELETED = "deleted"
    VANISHED = "vanished"  # absent from a complete picture, nobody saw how it ended
    ADMISSION = "admission"  # the API server refused the pod for good
    QUOTA = "quota"
    EXPIRED = "expired"
    DEAD = "dead"  # the message was delivered too often
    UNREACHABLE = "unreachable"  # the API did not answer, or refused the launcher's identity
    THROTTLED = "throttled"  # the API asked to come back later
    CANCELLED = "cancelled"  # a user's command ended it


# Only these are the consequence of stopping a condemned pod; any other cause is its own.
BY_STOPPING = frozenset({Cause.DEADLINE_EXCEEDED, Cause.DELETED})


# In Python 3.11, to look up a member in its class costs more than to test for it.
_FINAL = frozenset({PodState.SUCCEEDED, PodState.FAILED})


# The launch of a name, for who knows it already.
KnownLaunch = Callable[[LaunchName], Launch | None]


def no_launch(_name: LaunchName) -> None:
    """For who knows none."""


class _Stored(msgspec.Struct, omit_defaults=True):
    """An event as JSON has it."""

    v: int
    deployment: str
    key: msgspec.Raw
    launch_id: str
    attempt: int
    cluster: str
    namespace: str
    pod: str
    state: PodState
    started: Started
    # A string: JSON numbers lose digits beyond 2**53 in other readers.
    resource_version: str
    uid: str | None = None
    cause: Cause | None = None
    exit_code: int | None = None
    message: str | None = None
    node: str | None = None
    at: float | None = None


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Stored)


class PodEvent(Value, frozen=True):
    """The state of one attempt, seen at one resource version.

    Attributes:
        attempt: whose pod this is.
        cluster: name of the cluster, as configured.
        namespace: the pod's namespace.
        pod: the pod's name.
        state: where the attempt stands.
        uid: the pod's uid; None while no pod exists.
        resource_version: of the object this was read from; 0 without an object.
        started: what is proven about its containers.
        cause: why it failed or waits; None otherwise.
        exit_code: of the base container, where it terminated.
        message: the cause in words a task's author understands.
        node: where it is bound.
        at: when it happened by the cluster's clock, seconds since the epoch.
    """

    attempt: Attempt
    cluster: str
    namespace: str
    pod: str
    state: PodState
    uid: str | None = None
    resource_version: int = 0
    started: Started = Started.UNKNOWN
    cause: Cause | None = None
    exit_code: int | None = None
    message: str | None = None
    node: str | None = None
    at: float | None = None

    @property
    def launch(self) -> Launch:
        """The launch that the attempt belongs to."""
        return self.attempt.launch

    @property
    def final(self) -> bool:
        """Whether nothing more can happen to this attempt."""
        return self.state in _FINAL

    @property
    def news(self) -> tuple[object, ...]:
        """What the event says of its pod, whatever the version it was read from."""
        return (self.uid, self.state, self.cause, self.message, self.exit_code, self.node)

    def because(self, cause: Cause, message: str | None) -> PodEvent:
        """The same event with another cause."""
        return self.changed(cause=cause, message=message)

    def encode(self) -> bytes:
        """JSON, as it stands in the result stream and in the picture of pods."""
        launch = self.attempt.launch
        return _ENCODER.encode(
            _Stored(
                v=SCHEMA,
                deployment=launch.deployment,
                key=msgspec.Raw(launch.key_json),
                launch_id=launch.launch_id,
                attempt=self.attempt.number,
                cluster=self.cluster,
                namespace=self.namespace,
                pod=self.pod,
                state=self.state,
                started=self.started,
                resource_version=str(self.resource_version),
                uid=self.uid,
                cause=self.cause,
                exit_code=self.exit_code,
                message=self.message,
                node=self.node,
                at=self.at,
            )
        )

    @classmethod
    def decode(cls, data: bytes | str, known: KnownLaunch = no_launch) -> PodEvent:
        """Read what `encode` wrote.

        Args:
            data: the JSON.
            known: finds a launch by its name, which need not be checked once more then.

        Raises:
            NewerSchemaError: a newer kbroker wrote it.
            MessageError: it is not an event.
        """
        try:
            stored = _DECODER.decode(data)
            if stored.v > SCHEMA:
                raise _newer(stored.v)
            key = bytes(stored.key)
            launch = known((stored.deployment, stored.launch_id, key))
            if launch is None:
                parts = orjson.loads(key)
                launch = Launch(stored.deployment, TaskKey.from_list(parts), stored.launch_id)
            return cls(
                attempt=launch.attempt(stored.attempt),
                cluster=stored.cluster,
                namespace=stored.namespace,
                pod=stored.pod,
                state=stored.state,
                uid=stored.uid,
                resource_version=int(stored.resource_version),
                started=stored.started,
                cause=stored.cause,
                exit_code=stored.exit_code,
                message=stored.message,
                node=stored.node,
                at=stored.at,
            )
        except NewerSchemaError:
            raise
        except (ValueError, RecursionError, KbrokerError) as error:
            raise _unreadable(data, error) from error


def _newer(schema: int) -> NewerSchemaError:
    return NewerSchemaError(f"pod event of schema {schema}; this one reads {SCHEMA}")


def _unreadable(data: bytes | str, error: Exception) -> MessageError | NewerSchemaError:
    """What is wrong with an event: a newer one may have any shape."""
    try:
        schema = orjson.loads(data)["v"]
    except (ValueError, KeyError, TypeError, IndexError):
        schema = SCHEMA
    if isinstance(schema, int) and schema > SCHEMA:
        return _newer(schema)
    return MessageError(f"not a pod event: {error!r}")


def vanished(last: PodEvent, version: int) -> PodEvent:
    """The failure of a pod that a list does not show any more; nobody saw how it ended.

    Args:
        last: its last event.
        version: resource version of the list.
    """
    return last.changed(
        state=PodState.FAILED,
        resource_version=version,
        started=Started.YES if last.state is PodState.RUNNING else Started.UNKNOWN,
        cause=Cause.VANISHED,
        exit_code=None,
        message=f"pod {last.pod} is gone and nobody saw how it ended; it was last {last.state}",
        at=None,
    )


class Outcome(Value, frozen=True):
    """How a launch ended: the `info` of a final state in the event buffer.

    Attributes:
        launch_id: of the launch that ended.
        attempts: pods it took, the last one included.
        cause: why it failed; None for success.
        exit_code: of the base container, where it terminated.
        message: the cause in words a task's author understands.
        pod: name of the last attempt's pod.
        namespace: where it ran.
        uid: the pod's uid; None where no pod was created.
        queued_at: when the executor got it, seconds since the epoch.
        launched_at: when its last pod was first seen.
        started_at: when its base container started.
        finished_at: when it ended.
    """

    launch_id: str
    attempts: int
    cause: Cause | None = None
    exit_code: int | None = None
    message: str | None = None
    pod: str = ""
    namespace: str = ""
    uid: str | None = None
    queued_at: float | None = None
    launched_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None

    def __str__(self) -> str:
        if self.cause is None:
            return "succeeded"
        code = "" if self.exit_code is None else f", exit code {self.exit_code}"
        tries = "" if self.attempts == 1 else f" after {self.attempts} attempts"
        return f"{self.cause}{code}{tries}: {self.message or 'no message'}"
