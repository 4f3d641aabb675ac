"""Every command: its help, its mistakes, and what a shell offers for it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from kbroker.cli.command_groups import GROUPS
from kbroker.cli.completion import complete_run, complete_task
from kbroker.cli.main import _application, main
from tests.integration.scene import Scene, key

ROOT = Path(__file__).resolve().parents[2]


def walk(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command below this one by its words."""
    if not hasattr(command, "commands"):
        return {path: command}
    found = {}
    for name, below in command.commands.items():
        found.update(walk(below, (*path, name)))
    return found


COMMANDS = walk(typer.main.get_command(_application()))
# Whoever starts a Redis, or stops one, is in no need of another.
REDIS = [["ps"], ["describe", "x"], ["cancel", "x"], ["launcher"], ["watcher"]]
REDIS += [["dead", "list"], ["dead", "show", "1-0"], ["dead", "replay", "1-0"]]
REDIS += [["dead", "purge", "--all"]]


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("KBROKER", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.chdir(tmp_path)


def test_every_command_has_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("--help", capsys=capsys)
    assert code == 0
    for title, names in GROUPS.items():
        section = out.partition(f"{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in section.splitlines()] == list(names)
    assert "More:" not in out
    assert "--install-completion" in out
    assert re.search(r"^  Examples:\n    kbroker ", out, re.MULTILINE)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(*path, "--help", capsys=capsys)
    assert (code, err) == (0, "")
    assert re.search(r"^  Examples:\n    .*kbroker ", out, re.MULTILINE)
    assert re.search(r"exit code", out, re.IGNORECASE)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_wrong_option_is_one_line(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(*path, "--no-such-option", capsys=capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no such option" in err.lower()


@pytest.mark.parametrize(
    ("url", "code"), [(None, 2), ("redis://127.0.0.1:1/0", 1), ("http://x", 2)]
)
@pytest.mark.parametrize("command", REDIS, ids=" ".join)
def test_without_redis_it_is_one_line(
    command: list[str], url: str | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [] if url is None else ["--set", f"broker.url={url}"]
    left, out, err = call(*command, *more, capsys=capsys)
    assert (left, out, err.count("\n")) == (code, "", 1)
    assert "Redis" in err


def complete(line: str, environment: dict[str, str]) -> list[str]:
    """What bash would offer for the last word."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-m", "kbroker"],
        env={
            **os.environ,
            **environment,
            "PYTHONPATH": str(ROOT),
            "_KBROKER_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_a_shell_is_offered_what_is_wanted(redis_url: str) -> None:
    scene = Scene(redis_url)
    executor = scene.executor()
    for task in ("extract", "load"):
        executor.execute_async(key(task), ["true"])
    executor.heartbeat()
    given = scene.config.as_env()
    assert complete("kbroker describe dag.", given) == ["dag.extract", "dag.load"]
    context = typing_at(scene.config.broker.url)
    assert complete_task(context, "ex") == ["extract"]
    assert complete_run(context, "r") == ["run-1"]
    for nowhere in ("redis://127.0.0.1:1/0", "http://x"):
        assert complete_task(typing_at(nowhere), "ex") == []


def typing_at(url: str) -> Any:
    """The context of a command line that names this Redis."""
    return SimpleNamespace(params={"settings": [f"broker.url={url}"]})


def test_a_silent_redis_does_not_keep_a_shell_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        context = typing_at(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        begun = time.monotonic()
        assert complete_task(context, "") == []
        assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["ex*"], {"extract"}),
        (["dag.load", "extract"], {"extract", "load"}),
        (["--run", "run-?"], {"extract", "load"}),
        (["--run", "other"], set()),
        (["--state", "published"], {"extract", "load"}),
        (["--state", "running"], set()),
    ],
)
def test_ps_filters(
    redis_url: str, capsys: pytest.CaptureFixture[str], arguments: list[str], shown: set[str]
) -> None:
    executor = Scene(redis_url).executor()
    for task in ("extract", "load"):
        executor.execute_async(key(task), ["true"])
    executor.heartbeat()
    given = ["--json", "--set", f"broker.url={redis_url}"]
    code, out, _ = call("ps", *arguments, *given, capsys=capsys)
    assert code == 0
    assert {row["key"][1] for row in json.loads(out)} == shown


def test_ps_of_no_such_state(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call("ps", "--state", "gone", capsys=capsys)
    assert (code, "must be one of published, parked" in err) == (2, True)


def test_help_imports_no_server_parts() -> None:
    """It answers at once: what only some commands need is imported by them."""
    code = (
        "import sys\nfrom kbroker.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'aiohttp', 'dramatiq', 'kubernetes'}\n"
        "sys.stderr.write(' '.join(sorted(heavy & set(sys.modules))))\n"
    )
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stderr == ""
    assert time.monotonic() - begun < 10
