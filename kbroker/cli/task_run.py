"""One run of the tasks of a file: what a scheduler is to an executor."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kbroker.cli.task_file import TaskSpec
from kbroker.event import Outcome
from kbroker.executor import KubernetesExecutor
from kbroker.task import TaskKey


class State(StrEnum):
    """Where a task of the run stands, in the order of a task's life."""

    QUEUED = "queued"
    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more happens."""
        return self in (State.SUCCESS, State.FAILED, State.CANCELLED)


@dataclass(slots=True)
class TaskProgress:
    """One task of the run.

    Attributes:
        spec: its line in the file.
        state: where it stands.
        tries: how often it was tried, this time included.
        since: when it came into this state, monotonic seconds.
        outcome: how its last try ended.
    """

    spec: TaskSpec
    state: State = State.QUEUED
    tries: int = 1
    since: float = 0.0
    outcome: Outcome | None = None

    @property
    def as_expected(self) -> bool:
        """Whether it ended as its line says."""
        if self.state.value != self.spec.expected_state:
            return False
        wanted = self.spec.expected_cause
        return wanted is None or (self.outcome is not None and self.outcome.cause is wanted)


@dataclass(slots=True)
class TaskRun:
    """Drives an executor until every task is final.

    Args:
        tasks: what to run.
        executor: started already.
        name: the run's name, the dag id of its tasks.
        run_id: makes the launch ids; the same one names the same launches.
        retries: tries after the first, where a task does not say.
    """

    tasks: list[TaskSpec]
    executor: KubernetesExecutor
    name: str
    run_id: str
    retries: int = 0
    clock: Callable[[], float] = time.monotonic
    progress: dict[str, TaskProgress] = field(default_factory=dict)
    finished: int = 0
    interrupts: int = 0

    def submit(self) -> None:
        """Want every task."""
        for spec in self.tasks:
            self.progress[spec.id] = TaskProgress(spec, since=self.clock())
            self._execute(spec, 1)

    def _execute(self, spec: TaskSpec, number: int) -> None:
        self.executor.execute_async(
            self._key(spec.id, number),
            spec.command,
            executor_config=spec.config,
            launch_id=f"{self.run_id}/{spec.id}/{number}",
        )

    def _key(self, task: str, number: int) -> TaskKey:
        return TaskKey(self.name, task, self.run_id, number)

    def beat(self) -> None:
        """One turn of the scheduler's loop."""
        self.executor.heartbeat()
        for key, (state, info) in self.executor.get_event_buffer().items():
            self._take(self.progress[key.task_id], key, state, info)
        if self.interrupts:
            self._cancel(self.executor.not_launched())

    def _take(self, task: TaskProgress, key: TaskKey, state: str, info: Any) -> None:
        if state not in ("success", "failed"):
            self._enter(task, State.PENDING if state == "queued" else State.RUNNING)
            return
        task.outcome = info
        limit = self.retries if task.spec.retries is None else task.spec.retries
        if state == "failed" and key.try_number <= limit and not self.interrupts:
            task.tries = key.try_number + 1
            self._enter(task, State.QUEUED)
            self._execute(task.spec, task.tries)
            return
        self._enter(task, State(state))

    def _enter(self, task: TaskProgress, state: State) -> None:
        if state.final and not task.state.final:
            self.finished += 1
        task.state = state
        task.since = self.clock()

    def interrupt(self) -> None:
        """Ctrl-C: the first time nothing more is launched, the second time all is cancelled."""
        self.interrupts += 1

    def cancel_all(self) -> None:
        """Revoke everything that is not final; its pods are removed."""
        self._cancel([k for k in self._keys() if not self.progress[k.task_id].state.final])

    def _keys(self) -> list[TaskKey]:
        return [self._key(task.spec.id, task.tries) for task in self.progress.values()]

    def _cancel(self, keys: list[TaskKey]) -> None:
        for key in keys:
            self.executor.revoke(key, "cancelled by the user")
            self._enter(self.progress[key.task_id], State.CANCELLED)

    @property
    def over(self) -> bool:
        """Whether every task is final."""
        return self.finished == len(self.progress)

    @property
    def as_expected(self) -> bool:
        """Whether every task ended as its line says."""
        return all(task.as_expected for task in self.progress.values())

    def counts(self) -> Counter[State]:
        """How many tasks are in each state."""
        return Counter(task.state for task in self.progress.values())

    def slowest(self, count: int) -> list[TaskProgress]:
        """The tasks that have been running for longest."""
        running = [t for t in self.progress.values() if t.state is State.RUNNING]
        return sorted(running, key=lambda task: task.since)[:count]

    def waits(self, count: int) -> list[tuple[str, str]]:
        """Some tasks that wait, and why, those with a reason of their own first."""
        found = []
        for task in self.progress.values():
            if task.state in (State.QUEUED, State.PENDING):
                why = self.executor.waiting(self._key(task.spec.id, task.tries))
                if why and not why.startswith(("waits ", "all ")):
                    found.append((task.spec.id, why))
                    if len(found) == count:
                        break
        return found
