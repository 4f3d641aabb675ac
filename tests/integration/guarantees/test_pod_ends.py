"""Whatever ends a pod: what its task comes to, why, and how often its command started.

One stack for all; every row of the table is a task of one run, and they all run at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kbroker.event import Outcome
from tests.integration.guarantees.pod_ends import LIMIT, PENDING, PODS, ROWS, Json, Row
from tests.integration.stack import Run, Stack, running


def phase(pod: Json) -> tuple[str, str]:
    """Whose pod it is, and its phase."""
    return pod["metadata"]["labels"]["task_id"], pod["status"]["phase"]


class World:
    """The stack, its tasks, and what is still to happen to their pods."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.run = Run(stack, stack.executor())
        self.created = 0  # pods, when every row's task was final
        self._left = {row.task: list(row.events) for row in ROWS}
        self._done: set[str] = set()

    def want(self, row: Row) -> None:
        """Want this row's task."""
        command = self.stack.command(row.task, row.seconds)
        if row.command:
            command[2] = f'echo "start $0 $HOSTNAME" >> "$1"; {row.command}'
        self.run.want(row.task, command, executor_config=row.config)

    def pods_created(self) -> int:
        """How many pods the API server has made."""
        stats: dict[str, int] = self.stack.cluster.admin.get("/_local/stats")
        return stats.get("create pods 201", 0)

    def pods(self) -> list[Json]:
        """The pods that exist."""
        found: list[Json] = self.stack.cluster.admin.get(PODS)["items"]
        return found

    def happen(self) -> bool:
        """What is to happen to pods now; whether every task is final."""
        for pod in self.pods():
            metadata = pod["metadata"]
            left = self._left[metadata["labels"]["task_id"]]
            if left and metadata["uid"] not in self._done and left[0][0](pod):
                left.pop(0)[1](self.stack, metadata["name"])
                self._done.add(metadata["uid"])
        return len(self.run.finals) == len(self.run.tasks)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Every row's task has come to its end."""
    settings: dict[str, Any] = {
        "core.relaunch_limit": LIMIT,
        "core.reconcile_interval": 0.3,
        "kubernetes.create_window": 1.5,
        "kubernetes.retry_budget": 1.0,
        "kubernetes.request_timeout": 1.4,
        "watcher.check_interval": 0.2,
        "watcher.fatal_waiting_grace": 0.5,
        "watcher.pending_timeout": PENDING,
    }
    with running(tmp_path_factory.mktemp("stack"), launchers=1, **settings) as stack:
        world = World(stack)
        for row in ROWS:
            world.want(row)
        world.run.until("every task is final", world.happen)
        world.created = world.pods_created()
        yield world
        world.run.executor.end()
        stack.kill()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.task)
def test_what_a_task_comes_to(world: World, row: Row) -> None:
    finals = world.run.finals[row.task]
    assert len(finals) == 1, finals
    state, outcome = finals[0]
    assert isinstance(outcome, Outcome)
    assert (state, outcome.cause, outcome.exit_code) == (
        "success" if row.cause is None else "failed",
        row.cause,
        row.exit_code,
    ), outcome
    for words in row.message:
        assert words in str(outcome.message)
    assert (row.cause is None) == (outcome.message is None)
    assert outcome.attempts == row.pods
    assert world.stack.starts()[row.task] == row.starts
    assert world.stack.ends()[row.task] == (row.cause is None)


def test_no_pod_was_made_but_those(world: World) -> None:
    assert world.created == sum(row.pods for row in ROWS)


def test_a_pod_that_finished_before_any_watcher_saw_it(world: World) -> None:
    stack, run = world.stack, world.run
    watcher, *_ = stack.processes
    watcher.stop()
    run.submit("unseen")
    run.until("it has run", lambda: stack.ends()["unseen"])
    run.until("its pod says so", lambda: ("unseen", "Succeeded") in map(phase, world.pods()))
    assert run.executor.running == {run.key("unseen")}
    stack.watcher()
    run.until("it is final", lambda: run.finals["unseen"])
    ((state, outcome),) = run.finals["unseen"]
    assert (state, outcome.cause, outcome.exit_code, outcome.attempts) == ("success", None, 0, 1)
    assert stack.starts()["unseen"] == 1


def test_nothing_is_left_of_any_of_them(world: World) -> None:
    world.run.until("every pod is gone", lambda: not world.pods())
    assert world.run.executor.running == set()
    assert all(len(finals) == 1 for finals in world.run.finals.values())
