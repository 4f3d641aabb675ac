"""What an executor asks of a launcher: the values on the launch, delete and secrets queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar

import msgspec

from kbroker.errors import TaskError
from kbroker.event import Cause
from kbroker.schema import reading, string
from kbroker.task import Attempt, Launch, TaskKey
from kbroker.value import Value

SCHEMA = 2
# What is written: an older launcher goes on with all that it would not get wrong.
_PLAIN, _WITH_WORKLOAD = 1, 2
# https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size
_LARGEST_WORKLOAD = 1024 * 1024


def check_command(command: object) -> tuple[str, ...]:
    """A command as a tuple of strings.

    Raises:
        TaskError: it is not a non-empty list of strings.
    """
    if not isinstance(command, list | tuple) or not command:
        raise TaskError("command must be a non-empty list of strings")
    for position, word in enumerate(command):
        if not isinstance(word, str):
            raise TaskError(
                f"command must be a list of strings; word {position} is {type(word).__name__}"
            )
        try:
            word.isascii() or word.encode()
        except UnicodeEncodeError:
            raise TaskError(f"command: word {position} is not valid Unicode") from None
        if "\0" in word:
            raise TaskError(f"command: word {position} contains a NUL character")
    return tuple(command)


def check_workload(workload: object) -> str | None:
    """A workload that a Secret can hold; None for none.

    Raises:
        TaskError: it is no text, or too long.
    """
    if workload is None:
        return None
    if not isinstance(workload, str):
        raise TaskError(f"workload must be a string, not {type(workload).__name__}")
    try:
        size = len(workload.encode())
    except UnicodeEncodeError:
        raise TaskError("workload is not valid Unicode") from None
    if size > _LARGEST_WORKLOAD:
        raise TaskError(f"workload has {size} bytes; a Secret holds {_LARGEST_WORKLOAD} at most")
    return workload


class LaunchMessage(Value, frozen=True):
    """Create this attempt's pod, if its record still grants it.

    Attributes:
        attempt: whose pod.
        executor_id: the executor process that published it.
        cluster: name of the cluster whose launchers may take it.
        namespace: where the pod is created.
        command: argv of the base container; never logged.
        executor_config: per-task overrides, as `KubernetesExecutorConfig.as_dict` gives them.
        enqueued_at: when it was published, milliseconds since the epoch.
        expires_at: when it stops being worth launching, likewise; None is never.
        traceparent: W3C trace context of the publisher.
        workload: what the command finds in `workload_file.WORKLOAD_FILE`; never logged, and no
            part of the pod.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"command", "executor_config", "workload"})

    attempt: Attempt
    executor_id: str
    cluster: str
    namespace: str
    command: tuple[str, ...]
    executor_config: Mapping[str, Any] = msgspec.field(default_factory=dict)
    enqueued_at: int = 0
    expires_at: int | None = None
    traceparent: str | None = None
    workload: str | None = None

    def for_attempt(self, number: int) -> LaunchMessage:
        """The same message for another attempt."""
        return self.changed(attempt=self.attempt.launch.attempt(number))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, as it stands in the queue."""
        launch = self.attempt.launch
        fields = {
            "v": _PLAIN,
            "deployment": launch.deployment,
            "executor": self.executor_id,
            "cluster": self.cluster,
            "key": launch.key.as_list(),
            "launch_id": launch.launch_id,
            "attempt": self.attempt.number,
            "namespace": self.namespace,
            "command": list(self.command),
            "config": dict(self.executor_config),
            "enqueued_at": self.enqueued_at,
            "expires_at": self.expires_at,
            "traceparent": self.traceparent,
        }
        if self.workload is not None:
            fields.update(v=_WITH_WORKLOAD, workload=self.workload)
        return fields

    @classmethod
    def from_dict(cls, fields: object) -> LaunchMessage:
        """Read what `as_dict` gave.

        Raises:
            NewerSchemaError: a newer kbroker wrote it.
            MessageError: it is not a launch message.
        """
        with reading("launch message", fields, SCHEMA) as body:
            launch = Launch(body["deployment"], TaskKey.from_list(body["key"]), body["launch_id"])
            config = body["config"]
            if not isinstance(config, dict):
                raise TypeError("config must be an object")
            return cls(
                attempt=launch.attempt(body["attempt"]),
                executor_id=string(body, "executor"),
                cluster=string(body, "cluster"),
                namespace=string(body, "namespace"),
                command=check_command(body["command"]),
                executor_config=config,
                enqueued_at=int(body["enqueued_at"]),
                expires_at=None if body.get("expires_at") is None else int(body["expires_at"]),
                traceparent=body.get("traceparent"),
                workload=check_workload(body.get("workload")),
            )


class LaunchRequest(Value, frozen=True):
    """What a scheduler asks of an executor: run this command for this task.

    Attributes:
        key: the task try.
        command: argv; never logged.
        launch_id: names this queueing of the try.
        queue: one of the configured priorities; None, or any other, is the default one.
        executor_config: per-task overrides, see `KubernetesExecutorConfig.from_dict`.
        expires_at: when the command stops being worth launching, seconds since the epoch;
            None leaves it to `core.launch_timeout`.
        queued_at: when its scheduler wanted it first, seconds since the epoch; None is now.
        started: whether its container is known to have started: then it is never launched
            again, even if nothing is left of it.
        workload: what the command finds in `workload_file.WORKLOAD_FILE`, at most 1 MiB: it
            travels in a Secret of the pod's own. Never logged.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"command", "executor_config", "workload"})

    key: TaskKey
    command: Sequence[str]
    launch_id: str
    queue: str | None = None
    executor_config: Mapping[str, Any] | None = None
    expires_at: float | None = None
    queued_at: float | None = None
    started: bool = False
    workload: str | None = None


class Removal(StrEnum):
    """How a pod is to go."""

    DELETE = "delete"  # it has finished, or is unwanted
    RELEASE = "release"  # it has finished and is kept: whoever deletes it may
    STOP = "stop"  # end it so that its last status proves whether a container started


# By name alone: to look a member up in its class costs much in Python 3.11.
DELETE, RELEASE, STOP = Removal


class DeleteMessage(Value, frozen=True):
    """Remove one pod, exactly this one.

    Attributes:
        deployment: whose pod; compared with the pod's before anything is done.
        cluster: name of the cluster.
        namespace: the pod's namespace.
        pod: the pod's name.
        uid: the pod's uid, a precondition.
        removal: delete, release or stop.
        resource_version: precondition where a state was judged; None for none.
        not_before: milliseconds since the epoch by Redis' clock; until then the name
            must be held, so the pod is only stopped.
        reason: why, in words.
        cause: what a pod that is stopped will have failed of; None where it is for the pod to say.
    """

    deployment: str
    cluster: str
    namespace: str
    pod: str
    uid: str
    removal: Removal = DELETE
    resource_version: int | None = None
    not_before: int = 0
    reason: str = ""
    cause: Cause | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, as it stands in the queue."""
        return {
            "v": _PLAIN,
            "deployment": self.deployment,
            "cluster": self.cluster,
            "namespace": self.namespace,
            "pod": self.pod,
            "uid": self.uid,
            "removal": self.removal,
            "resource_version": None
            if self.resource_version is None
            else str(self.resource_version),
            "not_before": self.not_before,
            "reason": self.reason,
            "cause": self.cause,
        }

    @classmethod
    def from_dict(cls, fields: object) -> DeleteMessage:
        """Read what `as_dict` gave.

        Raises:
            NewerSchemaError: a newer kbroker wrote it.
            MessageError: it is not a delete message.
        """
        with reading("delete message", fields, SCHEMA) as body:
            version = body.get("resource_version")
            return cls(
                deployment=string(body, "deployment"),
                cluster=string(body, "cluster"),
                namespace=string(body, "namespace"),
                pod=string(body, "pod"),
                uid=string(body, "uid"),
                removal=Removal(body["removal"]),
                resource_version=None if version is None else int(version),
                not_before=int(body.get("not_before", 0)),
                reason=body.get("reason", ""),
                cause=Cause(body["cause"]) if body.get("cause") else None,
            )


class SecretMessage(Value, frozen=True):
    """Create or replace the Secret of one service account key; its content is no part of this.

    Attributes:
        deployment: whose Secret.
        cluster: name of the cluster.
        namespace: where the Secret is.
        name: of the key and of its Secret.
    """

    deployment: str
    cluster: str
    namespace: str
    name: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, as it stands in the queue."""
        return {
            "v": _PLAIN,
            "deployment": self.deployment,
            "cluster": self.cluster,
            "namespace": self.namespace,
            "name": self.name,
        }

    @classmethod
    def from_dict(cls, fields: object) -> SecretMessage:
        """Read what `as_dict` gave.

        Raises:
            NewerSchemaError: a newer kbroker wrote it.
            MessageError: it is not a secret message.
        """
        with reading("secret message", fields, SCHEMA) as body:
            return cls(
                *(string(body, name) for name in ("deployment", "cluster", "namespace", "name"))
            )
