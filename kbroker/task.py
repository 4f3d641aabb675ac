"""Who a task is: task key, launch, and one launch's attempts.

Three nested identities. A *task key* names a task try for the scheduler. A
*launch* is one queueing of that try: a deferred task that resumes keeps its key
and gets a new launch id. An *attempt* counts the pods created for one launch
after infrastructure failures.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from kbroker.errors import TaskError
from kbroker.value import value


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


@dataclass(frozen=True, slots=True)
class TaskKey:
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
    logical_date: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _text("task key", "dag_id", self.dag_id)
        _text("task key", "task_id", self.task_id)
        _text("task key", "run_id", self.run_id)
        _number("task key", "try_number", self.try_number, 0)
        _number("task key", "map_index", self.map_index, -1)
        if self.logical_date is not None:
            _text("task key", "logical_date", self.logical_date)

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


@value
class Launch:
    """One queueing of a task try in one deployment: the unit that runs at most once.

    Raises:
        TaskError: the deployment or the launch id is empty or not valid Unicode.
    """

    deployment: str
    key: TaskKey
    launch_id: str
    _digest: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        _text("launch", "deployment", self.deployment)
        _text("launch", "launch_id", self.launch_id)

    def __hash__(self) -> int:
        return hash(self.launch_id)  # it is all but unique, and a string remembers its hash

    @property
    def digest(self) -> str:
        """40 hex digits that name this launch's record in Redis."""
        if not self._digest:
            digest = _sha256(self.deployment, self.key, self.launch_id)[:40]
            self._digest = digest  # type: ignore[misc]
        return self._digest

    @property
    def name(self) -> bytes:
        """Everything that the launch is called, as JSON; see `name_of`."""
        return name_of(self.deployment, self.key.as_list(), self.launch_id)

    def attempt(self, number: int) -> Attempt:
        """The `number`-th attempt (from 1) of this launch."""
        return Attempt(self, number)


@value
class Attempt:
    """One pod's identity: the launch and how often it was launched, from 1."""

    launch: Launch
    number: int
    _digest: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        _number("attempt", "number", self.number, 1)

    @property
    def digest(self) -> str:
        """64 hex digits over (deployment, key, launch id, attempt)."""
        if not self._digest:
            launch = self.launch
            digest = _sha256(launch.deployment, launch.key, launch.launch_id, self.number)
            self._digest = digest  # type: ignore[misc]
        return self._digest

    def next(self) -> Attempt:
        """The attempt that follows this one."""
        return replace(self, number=self.number + 1)


def name_of(deployment: object, key: object, launch_id: object) -> bytes:
    """A launch as somebody's JSON calls it, unchecked; equal to a launch's `name` if it is that.

    No two values of JSON, 1 and true for one, have the same name.
    """
    return orjson.dumps([deployment, launch_id, key])


def _sha256(deployment: str, key: TaskKey, *rest: str | int) -> str:
    # JSON arrays, unlike joined strings, cannot coincide for different parts.
    parts = [deployment, *key.as_list()[:5], *rest]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()
