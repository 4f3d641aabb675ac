"""`kbroker render`: what it prints is what a launcher creates, and a cluster takes it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kbroker.cli.main import main
from kbroker.kube_config import ENV_PREFIX
from kbroker.manifests import Manifests
from kbroker.naming import CREATE_BEFORE
from kbroker.task import TaskKey
from tests.integration.local_cluster.client import Client
from tests.integration.scene import Scene

KUBECTL = Path(sys.executable).with_name("kubectl")
Render = Callable[..., tuple[int, str, str]]
RICH = {
    "id": "rich",
    "command": ["python", "-c", "print('a: \"b\" é\\n')"],
    "env": {"A": "1"},
    "labels": {"team": "data"},
    "pod_override": {"spec": {"containers": [{"name": "base", "env": [{"name": "B"}]}]}},
}
TASKS = [{"id": "hi", "command": ["echo", "hi"]}, RICH]


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(task) + "\n" for task in TASKS))
    return str(path)


@pytest.fixture
def render(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Render:
    for name in [name for name in os.environ if name.startswith("KBROKER")]:
        monkeypatch.delenv(name)

    def call(*arguments: str, given: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        with pytest.raises(SystemExit) as left:
            main(["render", *arguments])
        out, err = capfdbinary.readouterr()
        return int(left.value.code or 0), out.decode(), err.decode()

    return call


def rendered(render: Render, *arguments: str, given: str = "") -> dict[str, Any]:
    code, out, err = render(*arguments, given=given)
    assert (code, err) == (0, "")
    manifest: dict[str, Any] = yaml.safe_load(out)
    return manifest


@pytest.mark.parametrize("task", ["hi", "rich"])
def test_a_cluster_takes_it_and_nothing_is_created(
    render: Render, tasks: str, client: Client, tmp_path: Path, task: str
) -> None:
    code, out, err = render(tasks, "--task", task, "--namespace", client.namespace)
    assert (code, err) == (0, "")
    words = ["--kubeconfig", str(client.cluster.kubeconfig), "-n", client.namespace]
    done = subprocess.run(
        [str(KUBECTL), *words, "apply", "--dry-run=server", "-f", "-"],
        check=False,
        input=out,
        capture_output=True,
        text=True,
        timeout=20,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    name = yaml.safe_load(out)["metadata"]["name"]
    assert (done.returncode, done.stdout) == (0, f"pod/{name} created (server dry run)\n"), (
        done.stderr
    )
    assert client.items() == []


@pytest.mark.parametrize("merge", ["strategic", "airflow"])
@pytest.mark.parametrize("task", TASKS, ids=["hi", "rich"])
def test_it_is_what_a_launcher_makes_of_the_published_message(
    render: Render, tasks: str, redis_url: str, task: dict[str, Any], merge: str
) -> None:
    shown = rendered(
        render, tasks, "--task", task["id"], "--run-id", "r1",
        "--set", f"kubernetes.merge={merge}", "--set", "core.executor_id=exec-1",
    )  # fmt: skip
    scene = Scene(redis_url, **{"kubernetes.merge": merge, "core.executor_id": "exec-1"})
    executor = scene.executor()
    config = {name: value for name, value in task.items() if name not in ("id", "command")}
    launch_id = shown["metadata"]["annotations"]["kbroker/launch-id"]
    executor.execute_async(
        TaskKey("render", task["id"], "r1", 1), task["command"], executor_config=config,
        launch_id=launch_id,
    )  # fmt: skip
    executor.heartbeat()
    (message,) = scene.queued()
    made = Manifests(scene.config.kubernetes).build(message, 1_000_000)
    assert made["metadata"]["annotations"].pop(CREATE_BEFORE)
    assert shown == made


def test_formats_and_inputs_give_the_same(render: Render, tasks: str) -> None:
    as_yaml = rendered(render, tasks, "--task", "rich")
    assert as_yaml["spec"]["containers"][0]["command"] == RICH["command"]
    for arguments in (["--output", "json"], ["--json"]):
        code, out, err = render(tasks, "-t", "rich", *arguments)
        assert (code, err) == (0, "")
        assert json.loads(out) == as_yaml
    assert rendered(render, "-", given=json.dumps(RICH)) == as_yaml
    assert rendered(render, "-", given=yaml.safe_dump([RICH])) == as_yaml


def test_a_file_the_environment_and_arguments_configure_it(
    render: Render, tasks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kbroker.toml"
    file.write_text('[kubernetes]\nnamespace = "of-file"\nimage = "of-file"\n')
    options = [tasks, "-t", "hi", "--config", str(file)]

    def seen(*more: str) -> tuple[str, str]:
        pod = rendered(render, *options, *more)
        return pod["metadata"]["namespace"], pod["spec"]["containers"][0]["image"]

    assert seen() == ("of-file", "of-file")
    monkeypatch.setenv(ENV_PREFIX + "KUBERNETES__IMAGE", "of-env")
    assert seen() == ("of-file", "of-env")
    assert seen("--set", "kubernetes.image=own", "-n", "mine") == ("mine", "own")


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (["-"], "".join(json.dumps(t) + "\n" for t in TASKS), "name one of the 2 tasks"),
        (["-", "-t", "hy"], json.dumps(TASKS[0]), "there is no task 'hy'"),
        (["-", "-t", "rih"], json.dumps(RICH), "did you mean 'rich'?"),
        (["-"], "{", "standard input:1"),
        (["-"], "", "has no tasks"),
        (["/nowhere"], "", "/nowhere: cannot be read"),
        (
            ["-"],
            json.dumps({**RICH, "pod_override": {"spec": {"containers": "x"}}}),
            "pod_override.spec.containers must be a list",
        ),
        (
            ["-", "--set", "kubernetes.pod_template_file=/nowhere"],
            json.dumps(RICH),
            "/nowhere",
        ),
        (["-", "--output", "xml"], json.dumps(RICH), "'xml' is not one of"),
    ],
)
def test_a_mistake_is_one_line(render: Render, arguments: list[str], given: str, said: str) -> None:
    code, out, err = render(*arguments, given=given)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert said in err
