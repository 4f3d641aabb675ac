"""What happened to a pod: the value that travels from watcher and launchers to the executor."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import orjson

from kbroker.errors import KbrokerError, MessageError, NewerSchemaError
from kbroker.task import Attempt, Launch, TaskKey, name_of
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


# To call an enum takes several times as long, and an executor decodes every event.
_STATES = {member.value: member for member in PodState}
_STARTED = {member.value: member for member in Started}
_CAUSES = {member.value: member for member in Cause}
# In Python 3.11, to look up a member in its class costs nearly as much.
_FINAL = frozenset({PodState.SUCCEEDED, PodState.FAILED})


# The launch of a name, for who knows it already.
KnownLaunch = Callable[[bytes], Launch | None]


def no_launch(_name: bytes) -> None:
    """For who knows none."""


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
        fields: dict[str, Any] = {
            "v": SCHEMA,
            "deployment": launch.deployment,
            "key": launch.key.as_list(),
            "launch_id": launch.launch_id,
            "attempt": self.attempt.number,
            "cluster": self.cluster,
            "namespace": self.namespace,
            "pod": self.pod,
            "state": self.state,
            "started": self.started,
            # A string: JSON numbers lose digits beyond 2**53 in other readers.
            "resource_version": str(self.resource_version),
        }
        for name in ("uid", "cause", "exit_code", "message", "node", "at"):
            value = getattr(self, name)
            if value is not None:
                fields[name] = value
        return orjson.dumps(fields)

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
            fields = orjson.loads(data)
            if fields["v"] > SCHEMA:
                raise NewerSchemaError(
                    f"pod event of schema {fields['v']}; this one reads {SCHEMA}"
                )
            deployment, key, launch_id = fields["deployment"], fields["key"], fields["launch_id"]
            launch = known(name_of(deployment, key, launch_id))
            if launch is None:
                launch = Launch(deployment, TaskKey.from_list(key), launch_id)
            cause = fields.get("cause")
            return cls(
                attempt=launch.attempt(fields["attempt"]),
                cluster=fields["cluster"],
                namespace=fields["namespace"],
                pod=fields["pod"],
                state=_STATES[fields["state"]],
                uid=fields.get("uid"),
                resource_version=int(fields["resource_version"]),
                started=_STARTED[fields["started"]],
                cause=None if cause is None else _CAUSES[cause],
                exit_code=fields.get("exit_code"),
                message=fields.get("message"),
                node=fields.get("node"),
                at=fields.get("at"),
            )
        except NewerSchemaError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, KbrokerError) as error:
            raise MessageError(f"not a pod event: {error!r}") from error


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
