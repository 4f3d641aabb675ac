"""`kbroker describe`: from the queue to the forgotten record, with and without Kubernetes."""

from __future__ import annotations

import json
import re

import pytest

from kbroker.cli import describe as module
from kbroker.cli.pod_report import PodReport
from kbroker.event import Cause, PodState, Started
from kbroker.keys import LAUNCHERS_GROUP
from kbroker.record_scripts import launch_item
from kbroker.redis_client import run
from kbroker.task import Attempt
from tests.integration.in_process import Cli, command
from tests.integration.scene import Scene, key


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url)
    scene.lead()
    return scene


@pytest.fixture
def cli(scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return command("describe", scene, monkeypatch, capsys)


@pytest.fixture
def attempt(scene: Scene) -> Attempt:
    """Of a task that stands second in its queue."""
    executor = scene.executor(core__executor_lease=60.0)  # it lives for as long as a test
    for task in ("first", "task"):
        executor.execute_async(key(task), ["echo", "s3cret"], launch_id=f"l-{task}")
    executor.heartbeat()
    return next(m.attempt for m in scene.queued() if m.attempt.launch.key == key())


def told(cli: Cli, task: str = "task") -> dict:
    code, out, err = cli(task, "--json")
    assert code == 0, err
    assert "s3cret" not in out
    return json.loads(out)


@pytest.mark.parametrize("name", ["task", "dag.task", "l-task"])
def test_queued(attempt: Attempt, cli: Cli, name: str) -> None:
    about = told(cli, name)
    assert about["why"].startswith("No launcher is running")
    assert about["message"]["place"] == "queued"
    assert (about["message"]["ahead"], about["message"]["length"]) == (1, 2)
    assert about["key"] == key().as_list()


def test_in_hand_parked_and_dead(scene: Scene, attempt: Attempt, cli: Cli) -> None:
    queue = scene.keys.launch_queue("default", "normal")
    scene.redis.xgroup_create(queue, LAUNCHERS_GROUP, id="0")
    assert "with 1 before it" not in told(cli)["why"]
    scene.redis.xreadgroup(LAUNCHERS_GROUP, "l-1", {queue: ">"}, count=1)
    assert told(cli)["why"] == "It waits for a launcher, with 1 before it in the queue."
    scene.redis.xreadgroup(LAUNCHERS_GROUP, "l-1", {queue: ">"}, count=1)
    assert re.fullmatch(r"Launcher l-1 has it in hand for \d+ s\.", told(cli)["why"])
    event = scene.pod(attempt, PodState.WAITING, uid=None, resource_version=0)
    event = event.changed(cause=Cause.QUOTA, message="no room in the namespace")
    entry = scene.record(attempt)["entry"]
    call = scene.records.park(
        "default", launch_item(attempt), b"{}", 60.0, entry=(queue, entry), event=event
    )
    run(scene.redis, [call])
    assert told(cli)["why"].startswith(
        "It is parked: no room in the namespace; launchers look for room"
    )
    run(scene.redis, [scene.records.bury("", "", "it kills launchers", b"{}", event)])
    assert told(cli)["why"] == "Its message could not be processed and is dead: it kills launchers."


def test_a_pod_with_what_kubernetes_says(
    scene: Scene, attempt: Attempt, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = PodReport(
        phase="Running",
        node="n1",
        created="2026-01-01T00:00:00Z",
        events=(("2026-01-01T00:00:01Z", "Normal", "Pulled", "image\x1b[31m\npulled"),),
        log=("hello", "\x1b]0;bad\x07"),
    )
    monkeypatch.setattr(module, "pod_report", lambda *_: report)
    scene.launched(attempt)
    code, out, _ = cli("task")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "It is running."
    for name in ("Task:", "Executor:", "Message:", "Times:", "  Granted:", "Pod:", "Events:"):
        assert any(line.startswith(name) for line in lines), name
    assert "  hello" in lines
    assert "\x1b" not in out
    about = told(cli)
    assert about["pod"]["events"][0]["reason"] == "Pulled"
    times = about["times"]
    assert times["published_at"] <= times["granted_at"] <= times["started_at"] <= times["now"]


def test_without_a_cluster_it_says_so(scene: Scene, attempt: Attempt, cli: Cli) -> None:
    scene.launched(attempt)
    for more in (["--kubeconfig", "none"], ["--set", "kubernetes.cluster=other"]):
        code, out, err = cli("task", *more)
        assert (code, err) == (0, "")
        assert out.startswith("It is running.")
        assert "  (" in out


def test_a_finished_one_is_known_until_it_is_forgotten(
    scene: Scene, attempt: Attempt, cli: Cli
) -> None:
    scene.launched(attempt)
    scene.watched(
        scene.pod(
            attempt,
            PodState.FAILED,
            started=Started.YES,
            cause=Cause.OOM_KILLED,
            message="limit 1Gi",
            exit_code=137,
        )
    )
    scene.redis.hset(scene.keys.task(attempt.launch.digest), "state", "final")
    scene.redis.pexpire(scene.keys.task(attempt.launch.digest), 50_000)
    scene.redis.zrem(scene.keys.tasks, attempt.launch.digest)
    why = "It used more memory than its limit and was killed with exit code 137: limit 1Gi."
    assert told(cli)["why"] == why
    assert "final, forgotten in " in cli("task")[1]
    scene.redis.delete(scene.keys.task(attempt.launch.digest))
    code, out, err = cli("task")
    assert (code, out) == (3, "")
    assert "no task 'task' is recorded" in err


def test_without_watcher_and_executor(scene: Scene, attempt: Attempt, cli: Cli) -> None:
    scene.launched(attempt)
    scene.redis.delete(scene.keys.lease("default", "default"), scene.keys.executor("exec-1"))
    why = told(cli)["why"]
    assert "No watcher leads (scene was the last)" in why
    assert "Its executor exec-1 is gone, last seen" in why


def test_the_newest_and_of_a_run(scene: Scene, attempt: Attempt, cli: Cli) -> None:
    executor = scene.executor("exec-2")
    later = key().changed(run_id="run-2")
    scene.redis.hincrby(scene.keys.task(attempt.launch.digest), "published_at", -1000)
    executor.execute_async(later, ["true"], launch_id="l-later")
    executor.heartbeat()
    assert told(cli)["launch_id"] == "l-later"
    assert json.loads(cli("task", "--run", "run-1", "--json")[1])["launch_id"] == "l-task"
    assert cli("task", "--run", "run-3")[0] == 3
