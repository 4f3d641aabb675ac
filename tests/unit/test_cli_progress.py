"""The progress of a run on terminals of any width, without colour, and in a pipe."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from kbroker.cli.progress import Progress
from kbroker.cli.task_file import TaskSpec
from tests.unit.test_cli_task_run import Executor, run_of

HOSTILE = "a\x1b[2Jb\nc" + "ü🚀" * 60


def shown(width: int, *, terminal: bool, color: bool = True) -> str:
    """What is written while one task runs, one waits, and 3,000 are queued."""
    specs = [TaskSpec(f"t{n}", ("x",)) for n in range(3000)]
    run, executor = run_of(TaskSpec(HOSTILE, ("x",)), TaskSpec("b", ("x",)), *specs)
    executor.event_buffer[executor.launched[0][0]] = ("running", "launch")
    run.beat()
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        height=10,
        force_terminal=terminal,
        color_system="standard" if color else None,
        no_color=not color,
        emoji=False,
        markup=False,
        highlight=False,
    )
    now = [0.0]
    with Progress(run, console, lambda: now[0]) as progress:
        for _ in range(3):
            now[0] += 5.0
            progress.show()
        progress.say("something happened")
        progress.show(last=True)
    return out.getvalue()


def lines(text: str) -> list[str]:
    """What stands on the screen, line by line, without control sequences."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return plain.replace("\r", "\n").splitlines()


@pytest.mark.parametrize("width", [10, 40, 80, 200])
def test_no_line_of_the_picture_is_wider_than_the_terminal(width: int) -> None:
    text = shown(width, terminal=True)
    for line in lines(text):
        if line.strip() and "something" not in line and "happened" not in line:
            assert len(line.rstrip()) <= width, line
    assert "\x1b[2J" not in text  # a task's name clears no screen


def test_without_colour_there_is_none() -> None:
    coloured, plain = (
        re.findall(r"\x1b\[[0-9;]*m", shown(80, terminal=True, color=c)) for c in (True, False)
    )
    assert [code for code in coloured if re.search(r"3\d", code)]
    assert [code for code in plain if re.search(r"\[(3|9)\d", code)] == []


def test_in_a_pipe_there_are_whole_lines_and_nothing_else() -> None:
    text = shown(80, terminal=False)
    assert "\x1b" not in text
    assert "0/3002 done" in text
    assert "something happened\n" in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_a_beat_of_ten_thousand_asks_only_some_why_they_wait() -> None:
    run, executor = run_of(*(TaskSpec(f"t{n}", ("x",)) for n in range(10_000)))
    asked = []
    executor.waiting = lambda key: asked.append(key) or None  # type: ignore[method-assign, func-returns-value]
    run.waits(3)
    assert 0 < len(asked) <= 1000
    assert isinstance(executor, Executor)
