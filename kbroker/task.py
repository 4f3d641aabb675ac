"""Who a task is: task key, launch, and one launch's attempts.

Three nested identities. A *task key* names a task try for the scheduler. A
*launch* is one queueing of that try: a deferred task that resumes keeps its key
and gets a new launch id. An *attempt* counts the pods created for one launch
after infrastructure failures.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Self

import msgspec
import orjson
from msgspec.structs import force_setattr

from kbroker.errors import TaskError
from kbroker.value import Value


def _text(owner: str, name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TaskError(f"{owner}: {name} must be a string, not {type(value).__name__}")
    if not value:
        raise TaskError(f"{owner}: {name} must not be empty")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise TaskError(f"{owner}: {name} is not valid Unicode: {error.reason}") from None
    return value


def _number(owner: str, name: str, value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TaskError(f"{owner}: {name} must be an integer, not {type(value).__name__}")
    if not least <= value < 2**31:
        raise TaskError(f"{owner}: {name} must be from {least} to {2**31 - 1}, not {value}")
    return value


# Deployment, launch id, and the task key as JSON: of two keys that Python takes for equal, as 1
# and True are, each has its own.
LaunchName = tuple[str, str, bytes]


class TaskKey(Value, frozen=True):
    """A task try as the scheduler knows it.

    `logical_date` (ISO 8601) travels along where the scheduler has one; it is
    not part of the identity.

    Raises:
        TaskError: an id is empty, not a string or not valid Unicode, or a
            number is out of range.
    """

    dag_id: str
    task_id: str
    run_id: str
    try_number: int = 1
    map_index: int = -1
    logical_date: str | None = None

    def __post_init__(self) -> None:
        _text("task key", "dag_id", self.dag_id)
        _text("task key", "task_id", self.task_id)
        _text("task key", "run_id", self.run_id)
        _number("task key", "try_number", self.try_number, 0)
        _number("task key", "map_index", self.map_index, -1)
        if self.logical_date is not None:
            _text("task key", "logical_date", self.logical_date)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskKey):
            return NotImplemented
        return (
            self.task_id == other.task_id
            and self.run_id == other.run_id
            and self.map_index == other.map_index
            and self.dag_id == other.dag_id
            and self.try_number == other.try_number
        )

    def __hash__(self) -> int:
        # These tell most keys apart, and an executor looks up dozens of times per task.
        return hash((self.task_id, self.run_id, self.map_index))

    def __str__(self) -> str:
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{mapped} {self.run_id} try {self.try_number}"

    def as_list(self) -> list[Any]:
        """The key as a JSON array; `from_list` reads it back."""
        parts: list[Any] = [self.dag_id, self.task_id, self.run_id, self.try_number, self.map_index]
        return parts if self.logical_date is None else [*parts, self.logical_date]

    @classmethod
    def from_list(cls, parts: object) -> TaskKey:
        """Read what `as_list` wrote.

        Raises:
            TaskError: it is not an array of the right shape.
        """
        if not isinstance(parts, list) or not 5 <= len(parts) <= 6:
            raise TaskError("task key: must be an array of 5 or 6 values")
        return cls(*parts)


class Launch(Value, frozen=True):
    """One queueing of a task try in one deployment: the unit that runs at most once.

    Raises:
        TaskError: the deployment or the launch id is empty or not valid Unicode.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"_digest", "_key_json"})

    deployment: str
    key: TaskKey
    launch_id: str
    _digest: str = ""
    _key_json: bytes = b""

    def __post_init__(self) -> None:
        _text("launch", "deployment", self.deployment)
        _text("launch", "launch_id", self.launch_id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Launch):
            return NotImplemented
        return (
            self.launch_id == other.launch_id
            and self.key == other.key
            and self.deployment == other.deployment
        )

    def __hash__(self) -> int:
        return hash(self.launch_id)  # it is all but unique, and a string remembers its hash

    @property
    def digest(self) -> str:
        """40 hex digits that name this launch's record in Redis."""
        if not self._digest:
            digest = _sha256(self.deployment, self.key, self.launch_id)[:40]
            force_setattr(self, "_digest", digest)
        return self._digest

    def changed(self, **fields: Any) -> Self:
        """Another launch, with these fields; it has another digest."""
        return super().changed(**fields, _digest="", _key_json=b"")

    @property
    def key_json(self) -> bytes:
        """The task key as JSON: every event of the launch has it."""
        if not self._key_json:
            # orjson's bytes keep the kilobytes that it wrote them in.
            force_setattr(self, "_key_json", msgspec.json.encode(self.key.as_list()))
        return self._key_json

    @property
    def name(self) -> LaunchName:
        """Everything that the launch is called, as JSON calls it."""
        return self.deployment, self.launch_id, self.key_json

    def attempt(self, number: int) -> Attempt:
        """The `number`-th attempt (from 1) of this launch."""
        return Attempt(self, number)


class Attempt(Value, frozen=True):
    """One pod's identity: the launch and how often it was launched, from 1."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"_digest"})

    launch: Launch
    number: int
    _digest: str = ""

    def __post_init__(self) -> None:
        _number("attempt", "number", self.number, 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Attempt):
            return NotImplemented
        return self.number == other.number and self.launch == other.launch

    def __hash__(self) -> int:
        return hash((self.launch, self.number))

    @property
    def digest(self) -> str:
        """64 hex digits over (deployment, key, launch id, attempt)."""
        if not self._digest:
            launch = self.launch
            digest = _sha256(launch.deployment, launch.key, launch.launch_id, self.number)
            force_setattr(self, "_digest", digest)
        return self._digest

    def next(self) -> Attempt:
        """The attempt that follows this one."""
        return self.launch.attempt(self.number + 1)

    def changed(self, **fields: Any) -> Self:
        """Another attempt, with these fields; it has another digest."""
        return super().changed(**fields, _digest="")


def _sha256(deployment: str, key: TaskKey, *rest: str | int) -> str:
    # JSON arrays, unlike joined strings, cannot coincide for different parts.
    parts = [deployment, *key.as_list()[:5], *rest]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()
