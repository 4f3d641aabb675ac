"""Runs that are killed and go on: what the tasks' own ledger says counts."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.scene import poll
from tests.integration.stack import ROOT, Stack, running

TASKS = 60
SETTINGS = {"kubernetes__create_window": 2.0, "core__executor_lease": 1.0}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("stack"), launchers=1, **SETTINGS) as stack:
        yield stack


class Tasks:
    """A task file whose tasks write to a ledger, and the runs of it."""

    def __init__(self, stack: Stack, folder: Path, count: int, seconds: float = 0.3) -> None:
        self.stack = stack
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.names = [f"t{number}" for number in range(count)]
        script = 'echo "start $0" >> "$1"; sleep "$2"; echo "end $0" >> "$1"; echo "log of $0"'
        lines = (
            {"id": name, "command": ["sh", "-c", script, name, str(self.ledger), str(seconds)]}
            for name in self.names
        )
        self.file = folder / "tasks.jsonl"
        self.file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def begin(self, *options: str) -> subprocess.Popen[str]:
        """Start `kbroker run`."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("KBROKER", "KUBE"))}
        return subprocess.Popen(
            [sys.executable, "-m", "kbroker", "run", str(self.file), "--json", *options],
            cwd=self.folder,
            env={**plain, **self.stack.config().as_env(), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *options: str, code: int = 0) -> tuple[dict[str, object], str]:
        """Run to the end; the result and what was said."""
        process = self.begin(*options)
        out, err = process.communicate(timeout=90)
        assert process.returncode == code, out + err + self.stack.logs()
        return json.loads(out), err

    def count(self, what: str) -> collections.Counter[str]:
        """Task → how often it really started, or ended."""
        lines = [line.split() for line in self.ledger.read_text().splitlines()]
        return collections.Counter(line[1] for line in lines if line[0] == what)

    def kill_in_the_middle(self, process: subprocess.Popen[str]) -> None:
        """SIGKILL when a third has ended and some run."""
        poll("a third has ended", lambda: len(self.count("end")) >= len(self.names) // 3, 40)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert len(self.count("end")) < len(self.names)


@pytest.mark.parametrize("emptied", [False, True], ids=["Redis as it was", "FLUSHALL"])
def test_a_killed_run_goes_on_and_no_task_runs_twice(
    stack: Stack, tmp_path: Path, emptied: bool
) -> None:
    tasks = Tasks(stack, tmp_path, TASKS)
    options = ("--run-id", f"killed-{emptied}", "--max-parallel", "8")
    tasks.kill_in_the_middle(tasks.begin(*options))
    if emptied:
        stack.redis.flushall()
    result, said = tasks.finish(*options)
    assert result["counts"] == {"success": TASKS}
    assert "going on with run" in said
    assert tasks.count("start") == tasks.count("end") == collections.Counter(tasks.names)

    # Neither what ended before the kill nor what ended after it leaves a pod behind.
    poll("no pod is left", lambda: not pods(stack), 20)

    # Once more: everything is done, whatever Redis remembers.
    stack.redis.flushall()
    again, _ = tasks.finish(*options)
    assert again["counts"] == {"success": TASKS}
    assert tasks.count("start") == collections.Counter(tasks.names)


def pods(stack: Stack) -> list[str]:
    found = stack.cluster.admin.get("/api/v1/namespaces/default/pods")["items"]
    return [pod["metadata"]["name"] for pod in found]


def test_a_run_has_one_process_at_a_time(stack: Stack, tmp_path: Path) -> None:
    tasks, gate = Tasks(stack, tmp_path, 1), tmp_path / "gate"
    script = 'echo "start $0" >> "$1"; until [ -e "$2" ]; do sleep 0.1; done'
    command = ["sh", "-c", script, "t0", str(tasks.ledger), str(gate)]
    tasks.file.write_text(json.dumps({"id": "t0", "command": command}))
    first = tasks.begin("--run-id", "one")
    poll("it runs", lambda: tasks.count("start"), 20)
    second = tasks.begin("--run-id", "one")
    out, err = second.communicate(timeout=30)
    assert second.returncode == 2
    assert out == ""
    assert err.startswith(
        f"kbroker: error: run 'one' is being worked on by another process (pid {first.pid})"
    )
    gate.touch()
    first.communicate(timeout=30)
    assert first.returncode == 0


def test_fail_fast_cancels_the_others_and_the_run_can_go_on(stack: Stack, tmp_path: Path) -> None:
    tasks = Tasks(stack, tmp_path, 3, seconds=30.0)
    broken = {"id": "broken", "command": ["sh", "-c", "echo to the log; exit 3"]}
    tasks.file.write_text(tasks.file.read_text() + json.dumps(broken) + "\n")
    options = ("--run-id", "halted", "--logs", str(tmp_path / "logs"))
    begun = time.monotonic()
    result, said = tasks.finish(*options, "--fail-fast", code=1)
    assert time.monotonic() - begun < 25
    assert "a task failed: cancelling the others (--fail-fast)" in said
    assert result["counts"] == {"failed": 1, "cancelled": 3}
    assert (tmp_path / "logs" / "broken.log").read_text() == "to the log\n"

    tasks.file.write_text(tasks.file.read_text().replace('"30.0"', '"0.1"'))
    result, _ = tasks.finish(*options, code=1)
    assert result["counts"] == {"success": 3, "failed": 1}
    assert (tmp_path / "logs" / "t1.log").read_text() == "log of t1\n"
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [
        "broken.log", "t0.log", "t1.log", "t2.log",
    ]  # fmt: skip


def test_a_local_run_tries_anew_what_its_cluster_took_with_it(stack: Stack, tmp_path: Path) -> None:
    tasks = Tasks(stack, tmp_path, 4, seconds=3.0)
    quick = {"id": "quick", "command": ["sh", "-c", 'echo "end quick" >> "$0"', str(tasks.ledger)]}
    tasks.file.write_text(json.dumps(quick) + "\n" + tasks.file.read_text())
    options = ("--run-id", "local", "--local", "--launchers", "1", "--set", "broker.url=")
    journal = tmp_path / ".kbroker" / "runs" / "local" / "journal.jsonl"
    first = tasks.begin(*options[:-2])
    poll(
        "the quick one is known to have ended",
        lambda: journal.exists() and b'"end"' in journal.read_bytes(),
        30,
    )
    poll("the others run", lambda: len(tasks.count("start")) == 4, 30)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    result, _ = tasks.finish(*options[:-2])
    assert result["counts"] == {"success": 5}
    assert tasks.count("end") == collections.Counter([*tasks.names, "quick"])
    assert tasks.count("start")["t0"] == 2
