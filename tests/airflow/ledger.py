"""The ledger: what the tasks themselves say of when they ran."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One line that a task wrote.

    Attributes:
        what: "start", "resume" after a deferral, or "end".
        dag: id of the DAG.
        run: id of the run.
        task: id of the task.
        map_index: -1 for a task that is not mapped.
        try_number: counted from 1.
        pid: the process that ran it.
        host: its HOSTNAME: the pod's name.
        entry_point: what the pod template's command left in the environment.
        form: what the task's executor_config set in the environment.
        time: seconds since the epoch.
    """

    what: str
    dag: str
    run: str
    task: str
    map_index: int
    try_number: int
    pid: int
    host: str
    entry_point: str
    form: str
    time: float


class Ledger:
    """Reads what tasks have written so far.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Entry]:
        for line in self._path.read_text().splitlines():
            what, dag, run, task, map_index, try_number, pid, *texts, moment = line.split("\t")
            numbers = (int(map_index), int(try_number), int(pid))
            yield Entry(what, dag, run, task, *numbers, *texts, float(moment))

    def of(self, dag: str, run: str, task: str | None = None) -> list[Entry]:
        """What the tasks of a run have written, or one of them."""
        return [
            entry
            for entry in self
            if (entry.dag, entry.run) == (dag, run) and task in (None, entry.task)
        ]

    def starts(self, dag: str, run: str) -> list[tuple[str, int, int]]:
        """What has started, each time it has: task, map index and try, sorted."""
        return sorted(
            (e.task, e.map_index, e.try_number) for e in self.of(dag, run) if e.what == "start"
        )
