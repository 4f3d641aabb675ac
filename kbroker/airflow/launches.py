"""The launches that Airflow's scheduler wants of this executor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kbroker.task import TaskKey


@dataclass(slots=True, eq=False)
class Wanted:
    """One queueing of a task instance, or a callback.

    Attributes:
        key: as Airflow calls it.
        task_key: as kbroker calls it.
        launch_id: of this queueing.
        workload: what it runs; None once it has started: it is never run again.
        task_instance: id of the task instance; None for a callback.
        started: whether its container has started.
        told: what was said last about why it waits.
        unwanted_since: monotonic seconds since when the database wants it no more.
    """

    key: Any
    task_key: TaskKey
    launch_id: str
    workload: Any = None
    task_instance: Any = None
    started: bool = False
    told: str = ""
    unwanted_since: float | None = None

    def has_started(self) -> None:
        """Its container runs."""
        self.started = True
        self.workload = None


class WantedLaunches:
    """The newest launch of each key."""

    def __init__(self) -> None:
        self._by_key: dict[TaskKey, Wanted] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Wanted]:
        return iter(list(self._by_key.values()))

    def add(self, wanted: Wanted) -> None:
        """From now on this one speaks for its key."""
        self._by_key[wanted.task_key] = wanted

    def of(self, key: TaskKey, launch_id: str | None = None) -> Wanted | None:
        """The newest launch of a task key; with a launch id only if it is that one."""
        found = self._by_key.get(key)
        if found is None or launch_id not in (None, found.launch_id):
            return None
        return found

    def remove(self, wanted: Wanted) -> None:
        """It is over, or nobody wants it."""
        if self._by_key.get(wanted.task_key) is wanted:
            del self._by_key[wanted.task_key]
