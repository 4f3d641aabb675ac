"""Nothing lost, nothing run twice, while real processes die; counted in the tasks' own ledger."""

from __future__ import annotations

import collections
import time
from pathlib import Path

import pytest

from kbroker.event import Cause
from tests.integration.stack import Run, Stack, running

CREATE = {"verb": "create", "resource": "pods"}


def fault(stack: Stack, action: dict[str, object], times: int | None = None) -> None:
    """Misbehave at the next `times` creates."""
    stack.cluster.admin.post("/_local/faults", {"match": CREATE, "times": times, "action": action})


def test_fifty_tasks_without_any_fault(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        run = Run(stack, stack.executor())
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


def test_launcher_killed_between_grant_and_acknowledgement(tmp_path: Path) -> None:
    with running(tmp_path, launchers=1) as stack:
        run = Run(stack, stack.executor())
        # The pods are created, and their replies come too late for this launcher.
        fault(stack, {"latency_after_ms": 1500}, times=10)
        run.submit(*(f"t{n}" for n in range(20)))
        run.until("some were created", lambda: len(stack.starts()) >= 3)
        stack.processes[1].kill()
        stack.launcher()
        run.finish()
        run.assert_each_ran_once()


def test_leading_watcher_killed_while_pods_finish(tmp_path: Path) -> None:
    with running(tmp_path, watchers=2) as stack:
        leader = stack.leader()
        run = Run(stack, stack.executor())
        run.submit(*(f"t{n}" for n in range(20)), seconds=0.5)
        run.until("some run", lambda: len(stack.starts()) >= 10)
        for watcher in stack.processes[:2]:
            if f"{watcher._popen.pid}" in leader:
                watcher.kill()
        assert sum(p.alive for p in stack.processes[:2]) == 1, leader
        run.until("the standby leads", lambda: stack.leader() not in ("", leader))
        run.finish()
        run.assert_each_ran_once()


def test_executor_killed_and_started_again_adopts(tmp_path: Path) -> None:
    with running(tmp_path, core__executor_id="scheduler", core__executor_lease=1.0) as stack:
        states = tmp_path / "states"
        states.touch()
        argv = ("tests.integration.scheduler_process", str(stack.ledger_path), str(states), "20")
        first = stack.start(*argv, "0.3")
        deadline = time.monotonic() + 30
        while len(stack.starts()) < 5:
            assert time.monotonic() < deadline, stack.logs()
            time.sleep(0.02)
        first.kill()
        second = stack.start(*argv, "0.3")
        deadline = time.monotonic() + 40
        while second.alive:
            assert time.monotonic() < deadline, stack.logs()
            time.sleep(0.05)
        tasks = collections.Counter(f"t{n}" for n in range(20))
        assert stack.starts() == tasks, stack.logs()
        finals = {line.split()[0]: line.split()[1] for line in states.read_text().splitlines()}
        assert finals == dict.fromkeys(tasks, "success")


def test_flushall_in_the_middle_of_fifty_tasks(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        run = Run(stack, stack.executor())
        run.submit(*(f"t{n}" for n in range(50)), seconds=0.3)
        run.until("half have started", lambda: len(stack.starts()) >= 20)
        stack.redis.flushall()
        run.finish(60)
        run.assert_each_ran_once()


def test_create_whose_reply_is_lost(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        fault(stack, {"reset": "after"}, times=8)
        run = Run(stack, stack.executor())
        run.submit(*(f"t{n}" for n in range(20)))
        run.finish()
        run.assert_each_ran_once()


def test_410_with_deletions_in_the_gap(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        run = Run(stack, stack.executor())
        run.submit("deleted", "freed", seconds=60)
        run.submit(*(f"t{n}" for n in range(5)), seconds=2)
        run.until("all run", lambda: len(stack.starts()) == 7)
        run.until(
            "all are known to run", lambda: not any(map(run.executor.waiting, run.executor.running))
        )
        stack.processes[0].kill()
        names = [p.decode() for p in stack.redis.hkeys(stack.keys.pods("default", "default"))]
        for path in (f"/api/v1/namespaces/default/pods/{name}" for name in names):
            if "/dag-freed" in path:
                free = stack.cluster.admin.get(path)
                del free["metadata"]["finalizers"]
                stack.cluster.admin.request("PUT", path, free)
            if "/dag-t" not in path:
                stack.cluster.admin.delete(f"{path}?gracePeriodSeconds=0")
        run.until("the others have ended", lambda: len(stack.ends()) == 5)
        stack.cluster.admin.post("/_local/compact", {})
        stack.watcher()
        run.finish()
        ends = {task: [(s, outcome.cause) for s, outcome in f] for task, f in run.finals.items()}
        assert ends.pop("deleted") == [("failed", Cause.DELETED)]
        assert ends.pop("freed") == [("failed", Cause.VANISHED)]
        assert ends == {f"t{n}": [("success", None)] for n in range(5)}
        assert stack.starts() == collections.Counter(run.tasks)


def test_two_executors_at_once_hear_only_of_their_own(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        runs = [Run(stack, stack.executor(f"exec-{n}"), f"run-{n}") for n in (1, 2)]
        for n, run in enumerate(runs):
            run.submit(*(f"r{n}t{m}" for m in range(15)))
        for run in runs:
            run.until(
                "its tasks are final",
                lambda run=run: (runs[0].beat(), runs[1].beat(), len(run.finals) == 15)[2],
            )
        for n, run in enumerate(runs):
            assert set(run.finals) == {f"r{n}t{m}" for m in range(15)}
            assert all([s for s, _ in finals] == ["success"] for finals in run.finals.values())
        assert stack.starts() == collections.Counter(runs[0].tasks + runs[1].tasks)


@pytest.mark.parametrize("keep_data", [True, False])
def test_redis_restarted_underneath(tmp_path: Path, keep_data: bool) -> None:
    with running(tmp_path) as stack:
        run = Run(stack, stack.executor())
        run.submit(*(f"t{n}" for n in range(30)), seconds=0.3)
        run.until("some have started", lambda: len(stack.starts()) >= 10)
        stack.redis_server.restart(keep_data=keep_data)
        run.finish(60)
        run.assert_each_ran_once()
