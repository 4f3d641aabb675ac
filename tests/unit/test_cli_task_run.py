"""A run's bookkeeping, against an executor that does as it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kbroker.cli.task_file import TaskSpec
from kbroker.cli.task_run import State, TaskRun
from kbroker.event import Cause, Outcome
from kbroker.kube_config import KubeConfig
from kbroker.task import TaskKey


class Executor:
    """Remembers what is asked of it; events are put into `event_buffer` by the test."""

    def __init__(self) -> None:
        self.config = KubeConfig()
        self.event_buffer: dict[TaskKey, tuple[str, Any]] = {}
        self.launched: list[tuple[TaskKey, str, Mapping[str, Any]]] = []
        self.revoked: list[TaskKey] = []
        self.running: set[TaskKey] = set()
        self.queued_tasks: dict[TaskKey, None] = {}
        self.without_pod: list[TaskKey] = []

    def execute_async(
        self, key: TaskKey, command: Any, *, executor_config: Mapping[str, Any], launch_id: str
    ) -> None:
        assert command
        self.launched.append((key, launch_id, executor_config))
        self.running.add(key)

    def heartbeat(self) -> None:
        pass

    def get_event_buffer(self) -> dict[TaskKey, tuple[str, Any]]:
        events, self.event_buffer = self.event_buffer, {}
        return events

    def revoke(self, key: TaskKey, reason: str) -> None:
        assert reason
        self.revoked.append(key)
        self.running.discard(key)

    def not_launched(self) -> list[TaskKey]:
        return self.without_pod

    def waiting(self, key: TaskKey) -> str | None:
        return "waits for a launcher" if key.task_id == "a" else f"no room for\n{key.task_id}"


def run_of(*specs: TaskSpec, retries: int = 0, run_id: str = "r1") -> tuple[TaskRun, Executor]:
    executor = Executor()
    run = TaskRun(list(specs), executor, "dag", run_id, retries, clock=lambda: 0.0)  # type: ignore[arg-type]
    run.submit()
    return run, executor


def ended(cause: Cause | None = None, attempts: int = 1) -> Outcome:
    return Outcome("launch", attempts, cause, exit_code=None if cause is None else 1)


def test_launch_ids_are_derived_from_run_task_and_try() -> None:
    def ids(run_id: str) -> list[str]:
        _, executor = run_of(
            TaskSpec("a", ("x",)), TaskSpec("b" * 300, ("x",)), TaskSpec("ü🚀", ("x",)),
            run_id=run_id,
        )  # fmt: skip
        return [launch_id for _, launch_id, _ in executor.launched]

    assert ids("r1") == ids("r1")
    assert len({*ids("r1"), *ids("r2")}) == 6


def test_a_failed_try_is_repeated_until_the_limit() -> None:
    spec = TaskSpec("a", ("x",), {"image": "i"}, retries=2)
    run, executor = run_of(spec, retries=9)  # the line's own limit counts
    for number in (1, 2, 3):
        key = TaskKey("dag", "a", "r1", number)
        assert executor.launched[-1][0] == key
        executor.event_buffer[key] = ("failed", ended(Cause.ERROR, attempts=number))
        run.beat()
    assert len(executor.launched) == 3
    assert len({launch_id for _, launch_id, _ in executor.launched}) == 3
    assert {config["image"] for _, _, config in executor.launched} == {"i"}
    task = run.progress["a"]
    assert (task.state, task.tries, task.attempts) == (State.FAILED, 3, 6)
    assert run.over
    assert not run.as_expected


def test_the_limit_of_the_run_is_for_tasks_without_one() -> None:
    run, executor = run_of(TaskSpec("a", ("x",)), TaskSpec("b", ("x",), retries=0), retries=1)
    for key, _, _ in list(executor.launched):
        executor.event_buffer[key] = ("failed", ended(Cause.ERROR))
    run.beat()
    assert [key.task_id for key, _, _ in executor.launched] == ["a", "b", "a"]
    assert run.progress["b"].state is State.FAILED


@pytest.mark.parametrize(
    ("expected", "cause", "state", "outcome", "good"),
    [
        ("success", None, "success", ended(), True),
        ("success", None, "failed", ended(Cause.ERROR), False),
        ("failed", None, "failed", ended(Cause.OOM_KILLED), True),
        ("failed", Cause.ERROR, "failed", ended(Cause.ERROR), True),
        ("failed", Cause.ERROR, "failed", ended(Cause.IMAGE_PULL), False),
        ("failed", Cause.ERROR, "success", ended(), False),
    ],
)
def test_what_a_line_expects(
    expected: str, cause: Cause | None, state: str, outcome: Outcome, good: bool
) -> None:
    spec = TaskSpec("a", ("x",), expected_state=expected, expected_cause=cause)
    run, executor = run_of(spec)
    executor.event_buffer[executor.launched[0][0]] = (state, outcome)
    run.beat()
    assert run.as_expected is good
    assert bool(run.news()) is not good


def test_one_interrupt_cancels_what_has_no_pod_and_stops_retries() -> None:
    run, executor = run_of(TaskSpec("a", ("x",)), TaskSpec("b", ("x",), retries=5))
    a, b = (key for key, _, _ in executor.launched)
    executor.event_buffer[b] = ("running", "launch")
    executor.without_pod = [a]
    run.interrupt()
    run.beat()
    assert executor.revoked == [a]
    assert run.counts() == {State.CANCELLED: 1, State.RUNNING: 1}
    executor.event_buffer[b] = ("failed", ended(Cause.ERROR))
    run.beat()
    assert run.progress["b"].state is State.FAILED
    assert len(executor.launched) == 2
    assert run.over


def test_cancelling_revokes_what_is_not_final_once() -> None:
    run, executor = run_of(TaskSpec("a", ("x",)), TaskSpec("b", ("x",)))
    a, b = (key for key, _, _ in executor.launched)
    executor.event_buffer[a] = ("success", ended())
    run.beat()
    run.cancel_all()
    run.cancel_all()
    assert executor.revoked == [b]
    executor.event_buffer[b] = ("running", "launch")  # too late to matter
    run.beat()
    assert run.progress["b"].state is State.CANCELLED
    assert run.finished == 2


def test_a_task_that_the_executor_dropped_is_lost() -> None:
    now = [0.0]
    executor = Executor()
    specs = [TaskSpec("a", ("x",)), TaskSpec("b", ("x",)), TaskSpec("c", ("x",))]
    run = TaskRun(specs, executor, "dag", "r1", clock=lambda: now[0])  # type: ignore[arg-type]
    run.submit()
    a, b, _ = (key for key, _, _ in executor.launched)
    executor.running.clear()
    executor.running.add(a)
    executor.queued_tasks[b] = None
    run.beat()
    assert run.finished == 0  # it is looked at only from time to time
    now[0] = 60.0
    run.beat()
    assert [task.state for task in run.progress.values()] == [
        State.QUEUED, State.QUEUED, State.LOST,
    ]  # fmt: skip
    assert run.news() == [
        "c: another run has this launch, or it was withdrawn: give this run another --run-id"
    ]
    assert not run.as_expected


def test_waits_leaves_out_the_ordinary_and_is_one_line() -> None:
    run, _ = run_of(TaskSpec("a", ("x",)), TaskSpec("b", ("x",)), TaskSpec("c", ("x",)))
    assert run.waits(5) == [("b", "no room for b"), ("c", "no room for c")]
    assert run.waits(1) == [("b", "no room for b")]


def test_places_are_where_tasks_go() -> None:
    run, _ = run_of(
        TaskSpec("a", ("x",)),
        TaskSpec("b", ("x",), {"namespace": "jobs"}),
        TaskSpec("c", ("x",), {"cluster": "west"}),
    )
    assert run.places == {("default", "default"), ("default", "jobs"), ("west", "default")}


def test_many_failures_are_not_all_news() -> None:
    run, executor = run_of(*(TaskSpec(f"t{n}", ("x",)) for n in range(50)))
    for key, _, _ in executor.launched:
        executor.event_buffer[key] = ("failed", ended(Cause.ERROR))
    run.beat()
    news = run.news()
    assert len(news) == 21
    assert news[-1] == "further failures are in the table at the end"
    assert run.news() == []
