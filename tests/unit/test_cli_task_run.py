"""A run's bookkeeping, against an executor that does as it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kbroker.cli.journal import History
from kbroker.cli.task_file import TaskSpec
from kbroker.cli.task_progress import State
from kbroker.cli.task_run import Policy, TaskRun
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
        self.gone: list[TaskKey] = []
        self.adopted: list[tuple[TaskKey, str]] = []

    def execute_async(
        self, key: TaskKey, command: Any, *, executor_config: Mapping[str, Any], launch_id: str
    ) -> None:
        assert command
        self.launched.append((key, launch_id, executor_config))
        self.running.add(key)

    def heartbeat(self) -> None:
        pass

    def get_event_buffer(self, *, keep_pods: bool) -> dict[TaskKey, tuple[str, Any]]:
        self.keeps_pods = keep_pods
        events, self.event_buffer = self.event_buffer, {}
        return events

    def let_go(self, key: TaskKey) -> None:
        self.gone.append(key)

    def adopt(self, requests: Any) -> None:
        for request in requests:
            self.adopted.append((request.key, request.launch_id))
            self.running.add(request.key)

    def revoke_all(self, keys: list[TaskKey], reason: str) -> None:
        assert reason
        self.revoked += keys
        self.running -= set(keys)

    def not_launched(self) -> list[TaskKey]:
        return self.without_pod

    def waiting(self, key: TaskKey) -> str | None:
        return "waits for a launcher" if key.task_id == "a" else f"no room for\n{key.task_id}"


class Memory:
    """A journal in memory; `disk` is what was committed."""

    def __init__(self, **history: History) -> None:
        self.history = history
        self.lines: list[tuple[Any, ...]] = []
        self.disk: list[tuple[Any, ...]] = []

    def tried(self, task: str, number: int, spec: str) -> None:
        assert spec
        self.lines.append(("try", task, number))

    def ended(
        self, task: str, number: int, outcome: Outcome, *, state: str | None, retry_at: float | None
    ) -> None:
        self.lines.append(("end", task, number, state, retry_at))

    def dropped(self, task: str, number: int) -> None:
        self.lines.append(("drop", task, number))

    def commit(self) -> None:
        self.disk = list(self.lines)


def run_of(
    *specs: TaskSpec, run_id: str = "r1", memory: Memory | None = None, **values: Any
) -> tuple[TaskRun, Executor]:
    executor = Executor()
    policy = {name: values.pop(name) for name in Policy.__slots__ if name in values}
    run = TaskRun(
        list(specs),
        executor,  # type: ignore[arg-type]
        "dag",
        run_id,
        memory or Memory(),
        Policy(**policy),
        **{"clock": lambda: 0.0, **values},
    )
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
    memory = Memory()
    run = TaskRun(specs, executor, "dag", "r1", memory, clock=lambda: now[0])  # type: ignore[arg-type]
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


# What a journal remembers, and what comes of it.


def fail(executor: Executor, number: int = 1, cause: Cause = Cause.ERROR) -> None:
    executor.event_buffer[TaskKey("dag", "a", "r1", number)] = ("failed", ended(cause))


def test_a_try_is_on_disk_before_it_is_published_and_an_end_before_the_next_turn() -> None:
    memory = Memory()
    _, executor = run = run_of(TaskSpec("a", ("x",), retries=1), memory=memory)
    assert memory.disk == [("try", "a", 1)]
    fail(executor)
    run[0].beat()
    assert memory.disk == [
        ("try", "a", 1),
        ("end", "a", 1, None, memory.disk[1][4]),
        ("try", "a", 2),
    ]
    fail(executor, 2)
    run[0].beat()
    assert memory.disk[3:] == [("end", "a", 2, "failed", None)]


def test_a_retry_waits_for_its_time_and_others_do_not_wait_for_it() -> None:
    now = [1000.0]
    run, executor = run_of(
        TaskSpec("a", ("x",)), TaskSpec("b", ("x",)),
        retries=2, retry_delay=4.0, wall=lambda: now[0],
    )  # fmt: skip
    fail(executor)
    run.beat()
    due = run.memory.disk[-1][4]  # type: ignore[attr-defined]
    assert 1002.0 <= due <= 1004.0  # a random half of the delay is left out
    assert len(executor.launched) == 2
    executor.event_buffer[executor.launched[1][0]] = ("success", ended())
    run.beat()
    assert run.counts() == {State.QUEUED: 1, State.SUCCESS: 1}
    now[0] = due
    run.beat()
    assert executor.launched[-1][0] == TaskKey("dag", "a", "r1", 2)
    fail(executor, 2)
    run.beat()
    assert due + 4.0 <= run.memory.disk[-1][4] <= due + 8.0  # type: ignore[attr-defined]


def test_what_was_cancelled_by_command_is_not_tried_again() -> None:
    run, executor = run_of(TaskSpec("a", ("x",), retries=5))
    fail(executor, cause=Cause.CANCELLED)
    run.beat()
    assert run.progress["a"].state is State.CANCELLED
    assert run.over


def test_fail_fast_stops_retries_and_says_so() -> None:
    run, executor = run_of(TaskSpec("a", ("x",)), TaskSpec("b", ("x",), retries=3), fail_fast=True)
    fail(executor)
    run.beat()
    assert run.halted
    run.cancel_all()
    assert executor.revoked == [TaskKey("dag", "b", "r1", 1)]
    assert run.over
    expected = TaskSpec("a", ("x",), expected_state="failed")
    run, executor = run_of(expected, TaskSpec("b", ("x",)), fail_fast=True)
    fail(executor)
    run.beat()
    assert not run.halted


def test_a_cancelled_try_is_given_up_on_disk_first() -> None:
    memory = Memory()
    run, executor = run_of(TaskSpec("a", ("x",)), memory=memory)
    executor.revoke_all = lambda _keys, _reason: seen.append(list(memory.disk))  # type: ignore[method-assign]
    seen: list[Any] = []
    run.cancel_all()
    assert seen == [[("try", "a", 1), ("drop", "a", 1)]]


def test_a_resumed_run_takes_over_and_runs_nothing_twice() -> None:
    done, failed_once = ended(), ended(Cause.ERROR)
    memory = Memory(
        done=History("d", 1, False, [done], "success"),
        under_way=History("d", 2, True, [failed_once]),
        given_up=History("d", 1),
        due=History("d", 1, False, [failed_once], None, 50.0),
    )
    names = ("done", "under_way", "given_up", "due", "new")
    run, executor = run_of(
        *(TaskSpec(name, ("x",)) for name in names), memory=memory, retries=1, wall=lambda: 10.0
    )
    assert [(key.task_id, key.try_number) for key, _, _ in executor.launched] == [
        ("given_up", 2), ("new", 1),
    ]  # fmt: skip
    assert [(key.task_id, key.try_number) for key, _ in executor.adopted] == [("under_way", 2)]
    assert run.progress["done"].state is State.SUCCESS
    assert run.finished == 1
    # The failures before count: this one was the last.
    executor.event_buffer[TaskKey("dag", "under_way", "r1", 2)] = ("failed", failed_once)
    run.wall = lambda: 60.0
    run.beat()
    assert run.progress["under_way"].state is State.FAILED
    assert executor.launched[-1][0] == TaskKey("dag", "due", "r1", 2)


def test_the_tries_of_a_cluster_that_has_ended_are_tried_anew() -> None:
    memory = Memory(a=History("d", 1, True))
    _, executor = run_of(TaskSpec("a", ("x",)), memory=memory, cluster_gone=True)
    assert executor.adopted == []
    assert executor.launched[0][0] == TaskKey("dag", "a", "r1", 2)


class Logs:
    def __init__(self) -> None:
        self.asked: list[tuple[TaskKey, bool]] = []
        self.done: list[TaskKey] = []

    def fetch(self, key: TaskKey, _outcome: Outcome, *, last: bool) -> None:
        self.asked.append((key, last))

    def fetched(self) -> list[TaskKey]:
        done, self.done = self.done, []
        return done

    def news(self) -> list[str]:
        return []


def test_a_pod_stays_until_its_log_is_kept_and_the_run_with_it() -> None:
    logs = Logs()
    run, executor = run_of(TaskSpec("a", ("x",), retries=1), logs=logs)
    fail(executor)
    run.beat()
    first, second = (TaskKey("dag", "a", "r1", number) for number in (1, 2))
    assert executor.keeps_pods
    assert logs.asked == [(first, False)]
    executor.event_buffer[second] = ("success", ended())
    run.beat()
    assert logs.asked[1:] == [(second, True)]
    assert run.finished == 1
    assert not run.over
    assert executor.gone == []
    logs.done = [first, second]
    run.beat()
    assert executor.gone == [first, second]
    assert run.over
