"""One task of a run: where it stands, and how its tries ended."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from enum import StrEnum

import orjson

from kbroker.cli.task_file import TaskSpec
from kbroker.event import Outcome
from kbroker.task import Launch, TaskKey

_LAUNCH_IDS = uuid.UUID("5d3cb6d1-2f1c-5b43-9d61-6f5d8a0d6a53")


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
        launch: its present try.
        state: where it stands.
        since: when it came into this state, monotonic seconds.
        outcomes: how each try that ended did so, in order, those of earlier processes included.
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


def try_launch(deployment: str, run: str, run_id: str, task: str, number: int) -> Launch:
    """The launch of one try: the same for the same run, task and try.

    Args:
        deployment: id of the installation.
        run: the run's name, the dag id of its tasks.
        run_id: of the run.
        task: the task's id.
        number: the try, from 1.
    """
    name = orjson.dumps([run, run_id, task, number]).decode()
    key = TaskKey(run, task, run_id, number)
    return Launch(deployment, key, str(uuid.uuid5(_LAUNCH_IDS, name)))
