"""`kbroker config show` and `kbroker render`: what would be, and nothing done."""

from __future__ import annotations

import io
import json
from pathlib import Path

import orjson
import pytest
import yaml

from kbroker.cli.main import main
from kbroker.kube_config import KubeConfig
from kbroker.local.cluster_process import LocalCluster

TASKS = """\
- id: hello
  command: [echo, hello]
  request_cpu: 250m
- id: other
  command: [sh, -c, "echo other"]
  pod_override:
    spec: {containers: [{name: side, image: "side:1"}]}
"""


def kbroker(capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as left:
        main(words)
    out, err = capfd.readouterr()
    assert left.value.code == code, err
    return err if code else out


def test_every_setting_with_its_source(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "kbroker.toml"
    path.write_text("[core]\nparallelism = 3\n[kubernetes]\nimage = 'from-file'\n")
    monkeypatch.setenv("KBROKER__CORE__PARALLELISM", "4")
    words = ("config", "show", "--json", "--config", str(path), "--set", "watcher.lease=7")
    shown = json.loads(kbroker(capfd, *words))
    assert list(shown) == list(KubeConfig().values())
    assert shown["core.parallelism"] == {
        "value": 4,
        "source": "environment variable KBROKER__CORE__PARALLELISM",
    }
    assert shown["kubernetes.image"] == {"value": "from-file", "source": str(path)}
    assert shown["watcher.lease"] == {"value": 7.0, "source": "argument watcher.lease"}
    assert shown["broker.prefix"] == {"value": "{kbroker}:", "source": "default"}
    changed = json.loads(kbroker(capfd, *words, "--changed"))
    assert set(changed) == {"core.parallelism", "kubernetes.image", "watcher.lease"}
    table = kbroker(capfd, "config", "show", "core", "watcher.lease")
    names = [line.split()[0] for line in table.splitlines()]
    assert names[0] == "SETTING"
    assert names[-1] == "watcher.lease"
    assert all(name.startswith("core.") for name in names[1:-1])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:hush@redis:6379/0", "redis://user:***@redis:6379/0"),
        ("rediss://:hu%40sh@redis/1", "rediss://:***@redis/1"),
        ("redis://redis:6379", "redis://redis:6379"),
    ],
)
def test_a_password_is_not_shown(capfd: pytest.CaptureFixture[str], url: str, shown: str) -> None:
    said = kbroker(capfd, "config", "show", "broker.url", "--set", f"broker.url={url}")
    assert shown in said
    assert "hush" not in said
    assert "hu%40sh" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("config", "show", "core.paralelism"), "did you mean 'core.parallelism'?"),
        (("config", "show", "--set", "core.parallelism=-1"), "must be at least 0"),
        (("render", "TASKS"), "name one of the 2 tasks with --task, such as 'hello'"),
        (("render", "TASKS", "--task", "helo"), "there is no task 'helo'; did you mean 'hello'?"),
        (("render", "TASKS", "-t", "zzz"), "there is no task 'zzz'; there are hello, other"),
        (
            ("render", "TASKS", "-t", "hello", "--set", "kubernetes.pod_template_file=/none"),
            "pod template /none: No such file",
        ),
        (("render", "nowhere.jsonl"), "nowhere.jsonl: cannot be read"),
    ],
)
def test_a_mistake_is_one_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "tasks.yaml").write_text(TASKS)
    given = [str(tmp_path / "tasks.yaml") if word == "TASKS" else word for word in words]
    err = kbroker(capfd, *given, code=2)
    assert err.startswith("kbroker: error: ")
    assert said in err
    assert err.count("\n") == 1


def test_the_manifest_is_the_one_that_would_be_created(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tasks.yaml").write_text(TASKS)
    words = ("render", str(tmp_path / "tasks.yaml"), "--task", "hello", "-n", "jobs")
    pod = yaml.safe_load(kbroker(capfd, *words))
    assert orjson.loads(kbroker(capfd, *words, "--json")) == pod
    assert orjson.loads(kbroker(capfd, *words, "-o", "json")) == pod
    (base,) = pod["spec"]["containers"]
    assert base["command"] == ["echo", "hello"]
    assert base["resources"] == {"requests": {"cpu": "250m"}}
    assert pod["metadata"]["namespace"] == "jobs"
    assert "kbroker/create-before" not in pod["metadata"]["annotations"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TASKS.encode())))
    other = yaml.safe_load(kbroker(capfd, "render", "-", "-t", "other"))
    assert [container["name"] for container in other["spec"]["containers"]] == ["side", "base"]


def test_an_api_server_takes_it(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "tasks.yaml").write_text(TASKS)
    with LocalCluster(tmp_path / "cluster") as cluster:
        for task in ("hello", "other"):
            text = kbroker(capfd, "render", str(tmp_path / "tasks.yaml"), "-t", task, "--json")
            made = cluster.admin.post("/api/v1/namespaces/default/pods", orjson.loads(text))
            assert made["metadata"]["name"].startswith(f"render-{task}-")
