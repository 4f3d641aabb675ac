"""What a run remembers on disk, so that it can be resumed whatever became of Redis.

`DIR/<run id>/journal.jsonl` is only ever appended to, one JSON object a line:

    run    the run's name and id; the first line
    open   a process began to work on it: where, and whether the cluster was its own
    try    a try of a task is about to be wanted; on disk before it is published
    end    a try has ended; on disk before its pod may go
    drop   a try is given up by the run itself; on disk before its permission is withdrawn
    close  that process has let go of everything that had ended

So a try without `end` or `drop` may be under way, and its pod, if there is one, is
still there; one with an end has run and is never wanted again. Commands are not
written down: a digest tells whether a task is still the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import orjson

from kbroker.cli.task_file import TaskSpec
from kbroker.errors import UsageError
from kbroker.event import Cause, Outcome
from kbroker.naming import make_safe_label_value

SCHEMA = 1
_FILE = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process works on a run.

    Attributes:
        deployment: id of the installation.
        cluster: name of the cluster.
        namespace: of the pods.
        own_cluster: whether the cluster is a local one that ends with the process.
    """

    deployment: str
    cluster: str
    namespace: str
    own_cluster: bool


@dataclass(slots=True)
class History:
    """What became of one task so far.

    Attributes:
        digest: of its spec when it was tried last.
        number: its last try.
        under_way: whether that try has neither ended nor been given up.
        outcomes: of the tries that ended.
        state: its final state; None while it has none.
        retry_at: when the next try is due, seconds since the epoch; None if none is.
    """

    digest: str = ""
    number: int = 0
    under_way: bool = False
    outcomes: list[Outcome] = field(default_factory=list)
    state: str | None = None
    retry_at: float | None = None


def digest(spec: TaskSpec) -> str:
    """Tells one command and configuration from another."""
    stated = orjson.dumps([spec.command, spec.config], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(stated).hexdigest()[:16]


class Journal:
    """The journal of one run, held by this process alone.

    Args:
        folder: of all runs.
        run_id: of the run.
        name: of the run, when it is new.
        clock: seconds since the epoch.

    Attributes:
        name: the run's, from its first line.
        history: task id → what became of it.
        place: where it was worked on last; None for a new run.
        unclosed: (task, try, outcome) of what ended without being known to be let go of.
        warning: what was wrong with the file and has been mended; "" for nothing.

    Raises:
        UsageError: another process works on this run, or the file is no journal.
    """

    def __init__(
        self, folder: Path, run_id: str, name: str, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = journal_path(folder, run_id)
        self.run_id = run_id
        self.name = name
        self.history: dict[str, History] = {}
        self.place: Place | None = None
        self.unclosed: list[tuple[str, int, Outcome]] = []
        self.warning = ""
        self._clock = clock
        self._lines: list[bytes] = []
        self._made = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            self._lock()
            self._read()
        except BaseException:
            # Nobody else knows of the open file, whatever ended this: Ctrl-C too.
            self._file.close()
            raise

    @property
    def resumed(self) -> bool:
        """Whether somebody has worked on this run before."""
        return self.place is not None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._file.seek(0, os.SEEK_END):
            # Nothing came of the run: it leaves nothing.
            with contextlib.suppress(OSError):
                self.path.unlink()
                for folder in self._made:
                    folder.rmdir()
        self._file.close()

    def let_go(self) -> None:
        """This process leaves, and has let go of everything that ended."""
        self._add({"event": "close"})
        self.commit()

    def opened(self, place: Place, tasks: int) -> None:
        """This process works on it from now on."""
        if not self.resumed:
            self._add({"v": SCHEMA, "event": "run", "name": self.name, "run_id": self.run_id})
        self._add({"event": "open", "pid": os.getpid(), "tasks": tasks, **asdict(place)})
        self.place = place
        self.commit()

    def tried(self, task: str, number: int, spec: str) -> None:
        """A try is about to be wanted."""
        self._add({"event": "try", "task": task, "number": number, "spec": spec})

    def ended(
        self, task: str, number: int, outcome: Outcome, *, state: str | None, retry_at: float | None
    ) -> None:
        """A try has ended; with the task's final state, or when the next try is due."""
        self._add(
            {
                "event": "end",
                "task": task,
                "number": number,
                "state": state,
                "retry_at": retry_at,
                "outcome": msgspec.structs.asdict(outcome),
            }
        )

    def dropped(self, task: str, number: int) -> None:
        """The run gives a try up; resumed, the task is tried anew."""
        self._add({"event": "drop", "task": task, "number": number})

    def commit(self) -> None:
        """Have everything on disk."""
        if not self._lines:
            return
        self._file.write(b"".join(self._lines))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._lines.clear()

    def _add(self, fields: dict[str, Any]) -> None:
        line = {**fields, "at": round(self._clock(), 3)}
        self._lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            last = self._last_pid()
            raise UsageError(
                f"run {self.run_id!r} is being worked on by another process{last}: "
                "wait for it, or give this run another --run-id"
            ) from None

    def _last_pid(self) -> str:
        pids = [line.get("pid") for _, line in _lines(self.path, self._whole()) if line.get("pid")]
        return f" (pid {pids[-1]})" if pids else ""

    def _whole(self) -> bytes:
        """The file without a last line that was cut off."""
        self._file.seek(0)
        data = self._file.read()
        return data[: data.rfind(b"\n") + 1]

    def _read(self) -> None:
        data = self._whole()
        size = self._file.seek(0, os.SEEK_END)
        if size > len(data):
            self.warning = f"{self.path}: the last line was cut off, and is left out"
            self._file.truncate(len(data))
        for number, line in _lines(self.path, data):
            try:
                self._apply(line)
            except (KeyError, TypeError, ValueError) as error:
                raise _damaged(self.path, number, error) from None
        _sync_folder(self.path.parent)

    def _apply(self, line: dict[str, Any]) -> None:
        event = line["event"]
        if event == "run":
            if line["v"] > SCHEMA:
                raise UsageError(f"{self.path}: was written by a newer kbroker; use that one")
            if line["run_id"] != self.run_id:
                raise UsageError(f"{self.path}: is of run {line['run_id']!r}, not {self.run_id!r}")
            self.name = line["name"]
        elif event == "open":
            self.place = Place(*(line[name] for name in Place.__slots__))
        elif event == "close":
            self.unclosed.clear()
        else:
            task = self.history.setdefault(line["task"], History())
            _note(task, event, line)
            if event == "end":
                self.unclosed.append((line["task"], task.number, task.outcomes[-1]))


def journal_path(folder: Path, run_id: str) -> Path:
    """Where a run's journal is."""
    return folder / make_safe_label_value(run_id) / _FILE


def _note(task: History, event: str, line: dict[str, Any]) -> None:
    task.number = line["number"]
    task.under_way = event == "try"
    task.retry_at = None
    if event == "try":
        task.digest, task.state = line["spec"], None
    elif event == "end":
        task.state, task.retry_at = line["state"], line["retry_at"]
        cause = line["outcome"]["cause"]
        fields = {**line["outcome"], "cause": None if cause is None else Cause(cause)}
        task.outcomes.append(Outcome(**fields))
    elif event != "drop":
        raise ValueError(f"unknown event {event!r}")


def _lines(path: Path, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(data.splitlines(), 1):
        try:
            fields = orjson.loads(line)
        except ValueError as error:
            raise _damaged(path, number, error) from None
        if not isinstance(fields, dict):
            raise _damaged(path, number, TypeError("no object"))
        yield number, fields


def _damaged(path: Path, number: int, error: Exception) -> UsageError:
    return UsageError(
        f"{path}:{number}: is damaged ({error}): mend the line, or give the run another --run-id"
    )


def _sync_folder(folder: Path) -> None:
    """A new file is safe only when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
