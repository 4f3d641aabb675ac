"""Task files: what a line may say, and what a wrong one gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbroker.cli.task_file import TaskSpec, read_tasks
from kbroker.errors import KbrokerError, UsageError
from kbroker.event import Cause

DEMO = Path(__file__).resolve().parents[2] / "config" / "examples" / "demo.jsonl"


def write(folder: Path, *lines: str) -> str:
    path = folder / "tasks.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_line_becomes_a_task(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "# a comment, and an empty line",
        "",
        '{"id": "a", "command": ["echo", "hi"]}',
        '{"id": "b", "command": ["true"], "retries": 2, "timeout": 90, "image": "busybox:1",'
        ' "env": {"A": "b"}, "expect": {"state": "failed", "cause": "oom_killed"}}',
    )
    assert read_tasks(path) == [
        TaskSpec("a", ("echo", "hi")),
        TaskSpec(
            "b",
            ("true",),
            {"image": "busybox:1", "env": {"A": "b"}, "active_deadline_seconds": 90},
            2,
            "failed",
            Cause.OOM_KILLED,
        ),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json}", "is not JSON"),
        ("[1]", "must be an object"),
        ('{"id": "a"}', "command is missing"),
        ('{"command": ["true"]}', "id must be a non-empty string"),
        ('{"id": "", "command": ["true"]}', "id must be a non-empty string"),
        ('{"id": 7, "command": ["true"]}', "id must be a non-empty string"),
        ('{"id": "a", "command": "echo hi"}', "command must be a non-empty list of strings"),
        ('{"id": "a", "command": []}', "command must be a non-empty list of strings"),
        ('{"id": "a", "command": ["a", 1]}', "word 1 is int"),
        ('{"id": "a", "command": ["a\\u0000"]}', "contains a NUL character"),
        ('{"id": "a", "command": ["a"], "imagee": "x"}', "'imagee'; did you mean 'image'?"),
        ('{"id": "a", "command": ["a"], "image": 7}', "image must be a non-empty string"),
        ('{"id": "a", "command": ["a"], "env": {"A": 1}}', "env.A must be a string"),
        ('{"id": "a", "command": ["a"], "retries": -1}', "retries must be a whole number"),
        ('{"id": "a", "command": ["a"], "retries": true}', "retries must be a whole number"),
        ('{"id": "a", "command": ["a"], "timeout": 0}', "timeout must be a number of seconds"),
        ('{"id": "a", "command": ["a"], "expect": "failed"}', "expect must be an object"),
        (
            '{"id": "a", "command": ["a"], "expect": {"state": "failed", "cause": "bad"}}',
            "expect.cause must be one of",
        ),
        ('{"id": "first", "command": ["a"]}', "id 'first' stands in line 1 too"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = write(tmp_path, '{"id": "first", "command": ["true"]}', line)
    with pytest.raises(UsageError) as caught:
        read_tasks(path)
    text = str(caught.value)
    assert text.startswith(f"{path}:2: ")
    assert said in text
    assert "\n" not in text


def test_no_file_and_no_tasks(tmp_path: Path) -> None:
    with pytest.raises(KbrokerError, match="cannot be read: No such file"):
        read_tasks(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="has no tasks"):
        read_tasks(write(tmp_path, ""))


def test_the_demo_shows_what_it_should() -> None:
    tasks = {task.id: task for task in read_tasks(str(DEMO))}
    assert len(tasks) >= 40
    assert any(len(name) == 300 for name in tasks)
    assert any(not name.isascii() for name in tasks)
    assert any(task.retries and task.expected_state == "success" for task in tasks.values())
    assert any(task.config.get("env") for task in tasks.values())
    causes = {task.expected_cause for task in tasks.values()}
    assert causes >= {Cause.ERROR, Cause.IMAGE_PULL, Cause.DEADLINE_EXCEEDED}


YAML = """\
# a comment
- id: hello
  command: [echo, hello]
  env: {A: "1"}
- id: late
  command: [sleep, "5"]
  timeout: 3
"""


@pytest.mark.parametrize("name", ["tasks.yaml", "tasks.yml", "tasks"])
def test_a_list_in_yaml(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(YAML)
    first, second = read_tasks(str(path))
    assert (first.id, first.command, first.config) == (
        "hello",
        ("echo", "hello"),
        {"env": {"A": "1"}},
    )
    assert second.config == {"active_deadline_seconds": 3}


def test_a_json_array_is_yaml_too(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text('[{"id": "a", "command": ["true"]},\n {"id": "b", "command": ["true"]}]')
    assert [task.id for task in read_tasks(str(path))] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (YAML + "- id: x\n", ":8: command is missing"),
        (YAML + "- id: hello\n  command: [a]\n", ":8: id 'hello' stands in line 2 too"),
        (YAML + "- [1]\n", ":8: must be an object"),
        (YAML + "- id: x\n  command: echo\n", ":8: command must be a non-empty list of strings"),
        (YAML + "- id: 7\n  command: [a]\n", ":8: id must be a non-empty string"),
        ("- {a: [}\n", ":1: is not YAML: "),
        ("tasks: []\n", ": must be a list of tasks, each with id and command"),
        ("", "has no tasks"),
        ("# nothing\n", "has no tasks"),
        ("- id: !!python/name:os.system x\n", ":1: is not YAML: could not determine a constructor"),
    ],
)
def test_wrong_yaml_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_tasks(str(path))
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
