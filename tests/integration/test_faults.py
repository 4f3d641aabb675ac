"""Nothing lost, nothing run twice, while real processes die; counted in the tasks' own ledger."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbroker.event import Cause
from tests.integration.scene import poll
from tests.integration.stack import Process, Run, Stack, running

CREATE = {"verb": "create", "resource": "pods"}
PODS = "/api/v1/namespaces/default/pods"


class Shared:
    """One stack for all cases, whole again for each: a watcher and two launchers."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.watchers = stack.processes[:1]
        self.launchers = stack.processes[1:]

    def lend(self, name: str, ledger: Path) -> Run:
        """The whole stack with nothing in it, a ledger and an executor of the case's own."""
        stack = self.stack
        stack.cluster.admin.delete("/_local/faults")
        self.watchers = [one for one in self.watchers if one.alive] or [stack.watcher()]
        self.launchers = [one for one in self.launchers if one.alive]
        while len(self.launchers) < 2:
            self.launchers.append(stack.launcher())
        stack.until_led()
        stack.cluster.admin.delete(f"{PODS}?gracePeriodSeconds=0")
        known = stack.keys.pods("default", "default")
        poll("the last case's pods are forgotten", lambda: not stack.redis.hlen(known), 20)
        ledger.touch()
        stack.ledger_path = ledger
        return Run(stack, stack.executor(f"of-{name}"), name)

    def lone_launcher(self) -> Process:
        """One launcher only."""
        self.launchers.pop().kill()
        (launcher,) = self.launchers
        return launcher

    def one_more_launcher(self) -> None:
        """Start it."""
        self.launchers.append(self.stack.launcher())

    def one_more_watcher(self) -> None:
        """Start it."""
        self.watchers.append(self.stack.watcher())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with running(tmp_path_factory.mktemp("stack")) as stack:
        yield Shared(stack)


@pytest.fixture
def run(shared: Shared, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    """The tasks of one case."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40]
    run = shared.lend(name, tmp_path / "ledger")
    yield run
    run.executor.end()


def fault(stack: Stack, action: dict[str, object], times: int | None = None) -> None:
    """Misbehave at the next `times` creates."""
    stack.cluster.admin.post("/_local/faults", {"match": CREATE, "times": times, "action": action})


def test_fifty_tasks_without_any_fault(run: Run) -> None:
    stack = run.stack
    run.submit(*(f"t{n}" for n in range(50)))
    run.finish()
    run.assert_each_ran_once()
    stats = stack.cluster.admin.get("/_local/stats")
    run.until(
        "every pod is gone", lambda: not stack.redis.hlen(stack.keys.pods("default", "default"))
    )
    deletes = stack.cluster.admin.get("/_local/stats")
    assert stats != deletes
    run.executor.end()
    left = {key.decode() for key in stack.redis.keys("*")}
    live = {k for k in left if stack.redis.ttl(k) == -1}
    expected = {
        stack.keys.watch("default", "default"),
        stack.keys.delete_queue("default"),
        *(stack.keys.launch_queue("default", p) for p in ("high", "normal", "low")),
    }
    assert live <= expected


def test_launcher_killed_between_grant_and_acknowledgement(shared: Shared, run: Run) -> None:
    stack = run.stack
    launcher = shared.lone_launcher()
    # The pods are created, and their replies come too late for this launcher.
    fault(stack, {"latency_after_ms": 1500}, times=10)
    run.submit(*(f"t{n}" for n in range(20)))
    run.until("some were created", lambda: len(stack.starts()) >= 3)
    launcher.kill()
    shared.one_more_launcher()
    run.finish()
    run.assert_each_ran_once()


def test_leading_watcher_killed_while_pods_finish(shared: Shared, run: Run) -> None:
    stack = run.stack
    shared.one_more_watcher()
    leader = stack.leader()
    run.submit(*(f"t{n}" for n in range(20)), seconds=0.5)
    run.until("some run", lambda: len(stack.starts()) >= 10)
    for watcher in shared.watchers:
        if f"{watcher._popen.pid}" in leader:
            watcher.kill()
    assert sum(p.alive for p in shared.watchers) == 1, leader
    run.until("the standby leads", lambda: stack.leader() not in ("", leader))
    run.finish()
    run.assert_each_ran_once()


def test_executor_killed_and_started_again_adopts(run: Run, tmp_path: Path) -> None:
    stack = run.stack
    own = {"core__executor_id": "scheduler", "core__executor_lease": 1.0}
    states = tmp_path / "states"
    states.touch()
    argv = ("tests.integration.scheduler_process", str(stack.ledger_path), str(states), "20")
    first = stack.start(*argv, "0.3", **own)
    deadline = time.monotonic() + 30
    while len(stack.starts()) < 5:
        assert time.monotonic() < deadline, stack.logs()
        time.sleep(0.02)
    first.kill()
    second = stack.start(*argv, "0.3", **own)
    deadline = time.monotonic() + 40
    while second.alive:
        assert time.monotonic() < deadline, stack.logs()
        time.sleep(0.05)
    tasks = collections.Counter(f"t{n}" for n in range(20))
    assert stack.starts() == tasks, stack.logs()
    finals = {line.split()[0]: line.split()[1] for line in states.read_text().splitlines()}
    assert finals == dict.fromkeys(tasks, "success")


def test_flushall_in_the_middle_of_fifty_tasks(run: Run) -> None:
    stack = run.stack
    run.submit(*(f"t{n}" for n in range(50)), seconds=0.3)
    run.until("half have started", lambda: len(stack.starts()) >= 20)
    stack.redis.flushall()
    run.finish(60)
    run.assert_each_ran_once()


def test_create_whose_reply_is_lost(run: Run) -> None:
    stack = run.stack
    fault(stack, {"reset": "after"}, times=8)
    run.submit(*(f"t{n}" for n in range(20)))
    run.finish()
    run.assert_each_ran_once()


def test_410_with_deletions_in_the_gap(shared: Shared, run: Run) -> None:
    stack = run.stack
    run.submit("deleted", "freed", seconds=60)
    run.submit(*(f"t{n}" for n in range(5)), seconds=2)
    run.until("all run", lambda: len(stack.starts()) == 7)
    run.until(
        "all are known to run", lambda: not any(map(run.executor.waiting, run.executor.running))
    )
    for watcher in shared.watchers:
        watcher.kill()
    names = [p.decode() for p in stack.redis.hkeys(stack.keys.pods("default", "default"))]
    for path in (f"{PODS}/{name}" for name in names):
        if "/dag-freed" in path:
            free = stack.cluster.admin.get(path)
            del free["metadata"]["finalizers"]
            stack.cluster.admin.request("PUT", path, free)
        if "/dag-t" not in path:
            stack.cluster.admin.delete(f"{path}?gracePeriodSeconds=0")
    run.until("the others have ended", lambda: len(stack.ends()) == 5)
    stack.cluster.admin.post("/_local/compact", {})
    shared.one_more_watcher()
    run.finish()
    ends = {task: [(s, outcome.cause) for s, outcome in f] for task, f in run.finals.items()}
    assert ends.pop("deleted") == [("failed", Cause.DELETED)]
    assert ends.pop("freed") == [("failed", Cause.VANISHED)]
    assert ends == {f"t{n}": [("success", None)] for n in range(5)}
    assert stack.starts() == collections.Counter(run.tasks)


def test_two_executors_at_once_hear_only_of_their_own(run: Run) -> None:
    stack = run.stack
    other = Run(stack, stack.executor("another"), "another-run")
    runs = [run, other]
    for n, one in enumerate(runs):
        one.submit(*(f"r{n}t{m}" for m in range(15)))
    for one in runs:
        one.until(
            "its tasks are final",
            lambda one=one: (runs[0].beat(), runs[1].beat(), len(one.finals) == 15)[2],
        )
    for n, one in enumerate(runs):
        assert set(one.finals) == {f"r{n}t{m}" for m in range(15)}
        assert all([s for s, _ in finals] == ["success"] for finals in one.finals.values())
    assert stack.starts() == collections.Counter(runs[0].tasks + runs[1].tasks)
    other.executor.end()


@pytest.mark.parametrize("keep_data", [True, False])
def test_redis_restarted_underneath(run: Run, keep_data: bool) -> None:
    stack = run.stack
    run.submit(*(f"t{n}" for n in range(30)), seconds=0.3)
    run.until("some have started", lambda: len(stack.starts()) >= 10)
    stack.redis_server.restart(keep_data=keep_data)
    run.finish(60)
    run.assert_each_ran_once()
