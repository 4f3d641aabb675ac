"""Task files: one JSON object a line, each a task to run."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson

from kbroker.errors import ExecutorConfigError, TaskError, UsageError
from kbroker.event import Cause
from kbroker.executor_config import KubernetesExecutorConfig
from kbroker.message import check_command

_OWN = ("id", "command", "retries", "timeout", "expect")
_CONFIG = tuple(f.name for f in fields(KubernetesExecutorConfig))
_STATES = ("success", "failed")


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One line of a task file.

    Attributes:
        id: names the task within its run.
        command: argv.
        config: keys of `KubernetesExecutorConfig`.
        retries: tries after the first; None leaves it to the command line.
        expected_state: "success" or "failed": what is a good outcome.
        expected_cause: why it is expected to fail; None for any cause.
    """

    id: str
    command: tuple[str, ...] = field(repr=False)
    config: dict[str, Any] = field(default_factory=dict, repr=False)
    retries: int | None = None
    expected_state: str = "success"
    expected_cause: Cause | None = None


def read_tasks(path: str) -> list[TaskSpec]:
    """The tasks of a file, or of standard input for "-"; checked whole before anything runs.

    Raises:
        UsageError: the file cannot be read, or a line is wrong; names file and line.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    tasks = list(_parse("standard input" if path == "-" else path, data.splitlines()))
    if not tasks:
        raise UsageError(f"{path}: has no tasks; each line is one JSON object with id and command")
    return tasks


def _parse(name: str, lines: Iterable[bytes]) -> Iterable[TaskSpec]:
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            task = _task(line)
        except (UsageError, ValueError) as error:
            raise UsageError(f"{name}:{number}: {error}") from None
        if task.id in seen:
            raise UsageError(f"{name}:{number}: id {task.id!r} stands in line {seen[task.id]} too")
        seen[task.id] = number
        yield task


def _task(line: bytes) -> TaskSpec:
    try:
        given = orjson.loads(line)
    except ValueError as error:
        raise UsageError(f"is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UsageError("must be a JSON object with id and command")
    for key in given:
        if key not in _OWN and key not in _CONFIG:
            close = difflib.get_close_matches(key, [*_OWN, *_CONFIG], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"unknown field {key!r}{hint}")
    name = given.get("id")
    if not isinstance(name, str) or not name:
        raise UsageError("id must be a non-empty string")
    state, cause = _expectation(given.get("expect"))
    return TaskSpec(
        name, _command(given), _config(given), _retries(given.get("retries")), state, cause
    )


def _command(given: dict[str, Any]) -> tuple[str, ...]:
    if "command" not in given:
        raise UsageError("command is missing: a non-empty list of strings")
    return check_command(given["command"])


def _config(given: dict[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in given.items() if key in _CONFIG}
    timeout = given.get("timeout")
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0:
            raise UsageError(f"timeout must be a number of seconds above 0, not {timeout!r}")
        config["active_deadline_seconds"] = max(1, round(timeout))
    try:
        return KubernetesExecutorConfig.from_dict(config).as_dict()
    except ExecutorConfigError as error:
        raise TaskError(str(error).removeprefix("executor_config: ")) from None


def _retries(given: object) -> int | None:
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and given >= 0):
        return given
    raise UsageError(f"retries must be a whole number from 0, not {given!r}")


def _expectation(given: object) -> tuple[str, Cause | None]:
    if given is None:
        return "success", None
    if not isinstance(given, dict) or given.get("state") not in _STATES:
        raise UsageError('expect must be an object with state "success" or "failed"')
    cause = given.get("cause")
    try:
        return given["state"], None if cause is None else Cause(cause)
    except ValueError:
        known = ", ".join(cause.value for cause in Cause)
        raise UsageError(f"expect.cause must be one of {known}, not {cause!r}") from None
