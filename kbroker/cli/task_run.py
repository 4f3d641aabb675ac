"""One run of the tasks of a file: what a scheduler is to an executor."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from kbroker.cli.task_file import TaskSpec
from kbroker.cli.text import one_line
from kbroker.event import Outcome
from kbroker.executor import KubernetesExecutor
from kbroker.task import Launch, TaskKey

_LAUNCH_IDS = uuid.UUID("5d3cb6d1-2f1c-5b43-9d61-6f5d8a0d6a53")
# How often the executor is asked whether it still knows every task.
_RECOUNT_EVERY = 3.0
_NEWS = 20


class State(StrEnum):
    """Where a task of the run stands, in the order of a task's life."""

    QUEUED = "queued"
    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"  # its launch belongs to another run, or was withdrawn elsewhere

    @property
    def final(self) -> bool:
        """Whether nothing more happens."""
        return self in (State.SUCCESS, State.FAILED, State.CANCELLED, State.LOST)


@dataclass(slots=True)
class TaskProgress:
    """One task of the run.

    Attributes:
        spec: its line in the file.
        state: where it stands.
        since: when it came into this state, monotonic seconds.
        launch: its present try.
        outcomes: how each finished try ended, in order.
    """

    spec: TaskSpec
    launch: Launch
    state: State = State.QUEUED
    since: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def tries(self) -> int:
        """How often it was tried, the present try included."""
        return self.launch.key.try_number

    @property
    def outcome(self) -> Outcome | None:
        """How the last finished try ended."""
        return self.outcomes[-1] if self.outcomes else None

    @property
    def attempts(self) -> int:
        """How many launches it took, over all tries."""
        return sum(outcome.attempts for outcome in self.outcomes)

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
    _recount_at: float = 0.0
    _news: list[str] = field(default_factory=list)
    _told: int = 0

    def submit(self) -> None:
        """Want every task."""
        for spec in self.tasks:
            self.progress[spec.id] = TaskProgress(spec, self._launch(spec, 1), since=self.clock())
            self._execute(self.progress[spec.id])
        self._recount_at = self.clock() + _RECOUNT_EVERY

    def _launch(self, spec: TaskSpec, number: int) -> Launch:
        """The launch of one try: the same for the same run, task and try."""
        key = TaskKey(self.name, spec.id, self.run_id, number)
        name = orjson.dumps([self.name, self.run_id, spec.id, number]).decode()
        deployment = self.executor.config.core.deployment
        return Launch(deployment, key, str(uuid.uuid5(_LAUNCH_IDS, name)))

    def _execute(self, task: TaskProgress) -> None:
        self.executor.execute_async(
            task.launch.key,
            task.spec.command,
            executor_config=task.spec.config,
            launch_id=task.launch.launch_id,
        )

    def beat(self) -> None:
        """One turn of the scheduler's loop."""
        self.executor.heartbeat()
        for key, (state, info) in self.executor.get_event_buffer().items():
            task = self.progress[key.task_id]
            if key == task.launch.key and not task.state.final:
                self._take(task, state, info)
        if self.interrupts:
            self._cancel([self.progress[k.task_id] for k in self.executor.not_launched()])
        if self.clock() >= self._recount_at:
            self._recount_at = self.clock() + _RECOUNT_EVERY
            self._recount()

    def _take(self, task: TaskProgress, state: str, info: Any) -> None:
        if state not in ("success", "failed"):
            self._enter(task, State.PENDING if state == "queued" else State.RUNNING)
            return
        task.outcomes.append(info)
        limit = self.retries if task.spec.retries is None else task.spec.retries
        if state == "failed" and task.tries <= limit and not self.interrupts:
            self._tell(f"{task.spec.id}: try {task.tries} failed, trying again: {info}")
            task.launch = self._launch(task.spec, task.tries + 1)
            self._enter(task, State.QUEUED)
            self._execute(task)
            return
        self._enter(task, State(state))
        if not task.as_expected:
            self._tell(f"{task.spec.id}: {state}: {info}")

    def _enter(self, task: TaskProgress, state: State) -> None:
        if state.final and not task.state.final:
            self.finished += 1
        task.state = state
        task.since = self.clock()

    def _recount(self) -> None:
        """Find the tasks that the executor dropped: they are not this run's to run."""
        waiting = self.executor.queued_tasks
        for task in self.progress.values():
            key = task.launch.key
            known = task.state.final or key in waiting or key in self.executor.running
            if not known and key not in self.executor.event_buffer:
                self._enter(task, State.LOST)
                self._tell(
                    f"{task.spec.id}: another run has this launch, or it was withdrawn: "
                    "give this run another --run-id"
                )

    def _tell(self, line: str) -> None:
        self._told += 1
        if self._told <= _NEWS:
            self._news.append(one_line(line))
        elif self._told == _NEWS + 1:
            self._news.append("further failures are in the table at the end")

    def news(self) -> list[str]:
        """What happened since the last call that is worth a line."""
        news, self._news = self._news, []
        return news

    def interrupt(self) -> None:
        """Ctrl-C: the first time nothing more is launched, the second time all is cancelled."""
        self.interrupts += 1

    def cancel_all(self) -> None:
        """Revoke everything that is not final; its pods are removed."""
        self._cancel(list(self.progress.values()))

    def _cancel(self, tasks: list[TaskProgress]) -> None:
        for task in tasks:
            if not task.state.final:
                self.executor.revoke(task.launch.key, "cancelled by the user")
                self._enter(task, State.CANCELLED)

    @property
    def over(self) -> bool:
        """Whether every task is final."""
        return self.finished == len(self.progress)

    @property
    def as_expected(self) -> bool:
        """Whether every task ended as its line says."""
        return all(task.as_expected for task in self.progress.values())

    @property
    def places(self) -> set[tuple[str, str]]:
        """Cluster and namespace of every task."""
        settings = self.executor.config.kubernetes
        return {
            (
                spec.config.get("cluster", settings.cluster),
                spec.config.get("namespace", settings.namespace),
            )
            for spec in self.tasks
        }

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
                why = self.executor.waiting(task.launch.key)
                if why and not why.startswith(("waits ", "all ")):
                    found.append((task.spec.id, one_line(why)))
                    if len(found) == count:
                        break
        return found
