"""Task files: one JSON object a line, or a list in YAML; each entry is a task to run."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson
import yaml

from kbroker.errors import ExecutorConfigError, TaskError, UsageError
from kbroker.event import Cause
from kbroker.executor_config import KubernetesExecutorConfig
from kbroker.message import check_command

_OWN = ("id", "command", "retries", "timeout", "expect")
_CONFIG = tuple(f.name for f in fields(KubernetesExecutorConfig))
_STATES = ("success", "failed")
_YAML_SUFFIXES = (".yaml", ".yml")
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
    name = "standard input" if path == "-" else path
    tasks = list(_checked(name, _yaml(name, data) if _is_yaml(path, data) else _json(name, data)))
    if not tasks:
        raise UsageError(
            f"{path}: has no tasks; each is a JSON object on a line of its own, or an entry of a "
            "YAML list, with id and command"
        )
    return tasks


def _is_yaml(path: str, data: bytes) -> bool:
    if path.endswith(_YAML_SUFFIXES):
        return True
    lines = (line.lstrip() for line in data.splitlines())
    first = next((line for line in lines if line and not line.startswith(b"#")), b"{")
    return not first.startswith(b"{")


def _json(name: str, data: bytes) -> Iterator[tuple[int, object]]:
    """Line number and content of each line."""
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            yield number, orjson.loads(line)
        except ValueError as error:
            raise UsageError(f"{name}:{number}: is not JSON: {error}") from None


def _yaml(name: str, data: bytes) -> Iterator[tuple[int, object]]:
    """Line number and content of each entry."""
    try:
        document = yaml.load(data, _YAML_LOADER)  # noqa: S506 - a safe loader
        root = yaml.compose(data, _YAML_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise UsageError(f"{name}{where}: is not YAML: {problem}") from None
    if document is None:
        return
    if not isinstance(document, list) or not isinstance(root, yaml.SequenceNode):
        raise UsageError(f"{name}: must be a list of tasks, each with id and command")
    for node, entry in zip(root.value, document, strict=True):
        yield node.start_mark.line + 1, entry


def _checked(name: str, entries: Iterable[tuple[int, object]]) -> Iterator[TaskSpec]:
    seen: dict[str, int] = {}
    for number, given in entries:
        try:
            task = _task(given)
        except (UsageError, ValueError) as error:
            raise UsageError(f"{name}:{number}: {error}") from None
        if task.id in seen:
            raise UsageError(f"{name}:{number}: id {task.id!r} stands in line {seen[task.id]} too")
        seen[task.id] = number
        yield task


def _task(given: object) -> TaskSpec:
    if not isinstance(given, dict):
        raise UsageError("must be an object with id and command")
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
