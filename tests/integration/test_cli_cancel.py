"""`kbroker cancel`: what it chooses, says and does, up to pods of a real run."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kbroker.cli import cancel as module
from kbroker.cli.main import main
from kbroker.event import PodState
from kbroker.task import TaskKey
from tests.integration.in_process import Cli, command
from tests.integration.scene import Scene, poll
from tests.integration.stack import ROOT, Stack, running


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url)
    scene.lead()
    executor = scene.executor()
    for run_id, task in [("r1", "extract-a"), ("r1", "extract-b"), ("r1", "load"), ("r2", "load")]:
        executor.execute_async(TaskKey("etl", task, run_id), ["true"], launch_id=f"{run_id}-{task}")
    executor.heartbeat()
    return scene


@pytest.fixture
def cli(scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `kbroker cancel …` in this process: exit code, stdout, stderr."""
    return command("cancel", scene, monkeypatch, capsys)


ALL = ["r1-extract-a", "r1-extract-b", "r1-load", "r2-load"]


@pytest.mark.parametrize(
    ("arguments", "code", "chosen"),
    [
        (["extract-a"], 0, ["r1-extract-a"]),
        (["etl.extract-a"], 0, ["r1-extract-a"]),
        (["r2-load"], 0, ["r2-load"]),
        (["load", "--run", "r2"], 0, ["r2-load"]),
        (["extract-*"], 0, ["r1-extract-a", "r1-extract-b"]),
        (["--run", "r1", "--task", "*-[b]"], 0, ["r1-extract-b"]),
        (["--run", "r1"], 0, ALL[:3]),
        (["--run", "r*", "load"], 0, ["r1-load", "r2-load"]),
        (["--all"], 0, ALL),
        (["--all", "--run", "r2"], 0, ["r2-load"]),
        (["extract-a", "nothing"], 1, ["r1-extract-a"]),
        (["nothing"], 3, []),
        (["extract"], 3, []),
        (["--run", "r3"], 3, []),
        (["load"], 2, []),
        ([], 2, []),
        (["--all", "load"], 2, []),
    ],
)
def test_what_is_chosen(
    scene: Scene, cli: Cli, arguments: list[str], code: int, chosen: list[str]
) -> None:
    done, out, err = cli(*arguments, "--json", "--dry-run")
    assert done == code, err
    rows = json.loads(out) if out else []
    assert sorted(row["launch_id"] for row in rows) == chosen
    assert scene.redis.zcard(scene.keys.tasks) == len(ALL)
    done, out, err = cli(*arguments, "--json")
    assert done == code, err
    rows = json.loads(out) if out else []
    assert sorted((row["launch_id"], row["outcome"]) for row in rows) == [
        (launch_id, "cancelled") for launch_id in chosen
    ]
    left = {message.attempt.launch.launch_id for message in scene.queued()}
    assert left == set(ALL) - set(chosen)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("arguments", "answer", "code", "left"),
    [
        (["--all"], "n\n", 130, 4),
        (["--all"], "y\n", 0, 0),
        (["--all", "--yes"], "", 0, 0),
        (["extract-*"], "\n", 130, 4),
        (["extract-a"], "", 0, 3),
        (["extract-a", "extract-b"], "", 0, 2),
    ],
)
def test_a_terminal_is_asked(
    scene: Scene,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    answer: str,
    code: int,
    left: int,
) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    assert cli(*arguments)[0] == code
    assert scene.redis.zcard(scene.keys.tasks) == left


def test_what_ended_meanwhile(scene: Scene, cli: Cli) -> None:
    attempt = scene.queued()[0].attempt
    scene.launched(attempt)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED))
    code, out, _ = cli("extract-a")
    assert (code, out) == (1, "etl.extract-a r1 try 1: has ended by itself\n")
    assert cli("extract-*")[0] == 0


def test_wait_until_the_pod_is_gone(
    scene: Scene, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = scene.queued()[0].attempt
    scene.launched(attempt)
    code, out, _ = cli("extract-a", "--wait", "0.2")
    assert (code, "its pod is not known to be gone yet" in out) == (1, True)
    attempt = scene.queued()[0].attempt
    scene.launched(attempt)

    def removed(_seconds: float) -> None:
        scene.watched(scene.pod(attempt, PodState.FAILED), gone=True)

    monkeypatch.setattr(module.time, "sleep", removed)
    code, out, _ = cli("extract-b", "--wait", "20")
    assert (code, out) == (0, "etl.extract-b r1 try 1: cancelled, no pod is left\n")


def test_a_user_without_a_name(scene: Scene, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(module.getpass, "getuser", unknown)
    attempt = scene.queued()[0].attempt
    assert cli("extract-a")[0] == 0
    assert scene.record(attempt)["reason"].startswith("cancelled by unknown@")


def _run(stack: Stack, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("KBROKER", "KUBE"))}
    return subprocess.Popen(
        [sys.executable, "-m", "kbroker", *arguments],
        cwd=folder,
        env={**plain, **stack.config().as_env(), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_task_of_a_run_is_stopped_and_stays_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process than the one that wants it; and after a SIGKILL of that one."""
    ledger = tmp_path / "ledger"
    ledger.touch()
    script = 'echo "$0" >> "$1"; exec sleep "$2"'
    lines = [
        {"id": task, "command": ["sh", "-c", script, task, str(ledger), "600"], "retries": 2}
        for task in ("long", "orphan")
    ]
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = tmp_path / "stack"
    folder.mkdir()
    with running(folder, launchers=1, kubernetes__create_window=2.0) as stack:
        for name, value in stack.config().as_env().items():
            monkeypatch.setenv(name, value)
        process = _run(stack, tmp_path, "run", str(file), "--json", "--run-id", "r")
        poll("both run", lambda: len(ledger.read_text().split()) == 2, 40)

        def cancel(task: str) -> None:
            with pytest.raises(SystemExit) as left:
                main(["cancel", task, "--wait", "30", "--json"])
            out, err = capsys.readouterr()
            assert left.value.code == 0, out + err + stack.logs()
            assert json.loads(out)[0]["gone"] is True

        with pytest.raises(SystemExit):
            main(["describe", "long", "--json"])
        about = json.loads(capsys.readouterr().out)
        assert about["why"].startswith("It is running"), about
        pod = about["pod"]
        assert (pod["problem"], pod["phase"]) == ("", "Running"), about
        assert all(pod[name] for name in ("created", "scheduled", "started")), about
        assert "Started" in {one["reason"] for one in pod["events"]}, about
        cancel("long")
        cancel("orphan")
        out, err = process.communicate(timeout=40)
        states = {task["id"]: task["state"] for task in json.loads(out)["tasks"]}
        assert states == {"long": "cancelled", "orphan": "cancelled"}, out + err
        assert process.returncode == 1
        process = _run(stack, tmp_path, "run", str(file), "--json", "--run-id", "s")
        poll("both run again", lambda: len(ledger.read_text().split()) == 4, 40)
        process.kill()
        process.communicate()
        cancel("long")
        cancel("orphan")
        assert len(ledger.read_text().split()) == 4
