"""What a run prints at its end and meanwhile, from values alone."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from kbroker.cli.progress import Progress
from kbroker.cli.report import Report
from kbroker.cli.task_file import TaskSpec
from kbroker.cli.task_run import TaskRun
from kbroker.cli.text import one_line, plain_console
from kbroker.event import Cause, Outcome
from kbroker.inspection import LaunchTimes
from tests.unit.test_cli_task_run import ended, run_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\r\n and\tmore ", "two lines and more"),
        ("Grüße 日本 🚀", "Grüße 日本 🚀"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("right\u202eleft", "right\\u202eleft"),
        ("", ""),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown


def finished(count: int = 1, **outcome: object) -> TaskRun:
    run, executor = run_of(*(TaskSpec(f"t{n}", ("x",)) for n in range(count)))
    for key, launch_id, _ in executor.launched:
        executor.event_buffer[key] = ("success", Outcome(launch_id, 1, **outcome))  # type: ignore[arg-type]
    run.beat()
    return run


def test_times_are_those_of_redis_where_it_has_them() -> None:
    run = finished(queued_at=100.0, launched_at=101.0, started_at=102.0, finished_at=107.0)
    task = run.progress["t0"]
    known = {"t0": LaunchTimes(granted_at=100.25, started_at=100.75, finished_at=106.5)}
    assert Report(run, times=known).spans(task) == (0.25, 0.5, 5.75)
    # Where it has none: Kubernetes' own, which are whole seconds.
    assert Report(run).spans(task) == (1.0, 1.0, 5.0)
    assert Report(run, times={"t0": LaunchTimes(granted_at=100.25)}).spans(task) == (1.0, 1.0, 5.0)


def test_times_never_run_backwards() -> None:
    run = finished(queued_at=100.9, launched_at=100.0, started_at=None, finished_at=101.0)
    assert Report(run).spans(run.progress["t0"]) == (0.0, None, None)


def printed(report: Report) -> str:
    out = io.StringIO()
    report.print_table(Console(file=out, width=120, markup=False, emoji=False, highlight=False))
    return out.getvalue()


def test_a_long_run_lists_only_what_did_not_succeed() -> None:
    run, executor = run_of(*(TaskSpec(f"t{n}", ("x",)) for n in range(1000)))
    for key, _, _ in executor.launched:
        bad = key.task_id == "t500"
        executor.event_buffer[key] = ("failed", ended(Cause.ERROR)) if bad else ("success", ended())
    run.beat()
    text = printed(Report(run))
    assert re.search(r"^t500 +failed\* +error ", text, re.MULTILINE)
    assert "and 999 more; --json has them all" in text
    assert text.count("\n") < 10
    assert len(Report(run).as_json(interrupted=False)["tasks"]) == 1000


def test_logs_get_names_that_people_find(tmp_path: Path) -> None:
    run, executor = run_of(TaskSpec("a/b", ("x",), retries=1), TaskSpec("no-pod", ("x",)))
    for number, state in ((1, "failed"), (2, "success")):
        key, launch_id, _ = next(
            entry for entry in executor.launched[::-1] if entry[0].task_id == "a/b"
        )
        log = tmp_path / "pods" / "default" / f"pod-{number}" / f"uid-{number}" / "base.log"
        log.parent.mkdir(parents=True)
        log.write_text(f"try {number}")
        cause = Cause.ERROR if state == "failed" else None
        executor.event_buffer[key] = (
            state,
            Outcome(
                launch_id, 1, cause, pod=f"pod-{number}", namespace="default", uid=f"uid-{number}"
            ),
        )
        run.beat()
    folder = tmp_path / "logs"
    assert Report(run, tmp_path / "pods").link_logs(folder) == 2
    found = {path.name: path.read_text() for path in folder.iterdir()}
    (last,) = (name for name in found if ".try-" not in name)
    assert found == {last: "try 2", last.replace(".log", ".try-1.log"): "try 1"}
    assert "/" not in last


def test_progress_without_a_terminal_is_plain_lines() -> None:
    now = [0.0]
    run, executor = run_of(TaskSpec("a", ("x",)), TaskSpec("b :watch: [x]", ("x",)))
    out = io.StringIO()
    console = Console(file=out, width=40, markup=False, emoji=False, highlight=False)
    with Progress(run, console, clock=lambda: now[0]) as progress:
        now[0] = 2.0
        progress.show()
        progress.show()  # not again so soon
        executor.event_buffer[executor.launched[0][0]] = ("success", ended())
        run.beat()
        now[0] = 4.0
        progress.show()
    assert out.getvalue().splitlines() == [
        "    2s  0/2 done  0.0/s  2 queued",
        "        b :watch: [x] waits: no room for b :watch: [x]",
        "    4s  1/2 done  0.5/s  1 queued, 1 success",
    ]


def test_progress_on_a_terminal_shows_the_slowest(capsys: pytest.CaptureFixture[str]) -> None:
    run, executor = run_of(TaskSpec("a\x1b[2J", ("x",)), TaskSpec("b", ("x",)))
    executor.event_buffer[executor.launched[0][0]] = ("running", "launch")
    run.beat()
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    with Progress(run, console, clock=lambda: 9.0) as progress:
        progress.show(last=True)
    shown = out.getvalue()
    assert "0/2 done" in shown
    assert "a\\x1b[2J" in shown
    assert "a\x1b[2J" not in shown
    assert "9 s" in shown


def test_a_console_prints_redis_keys_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    plain_console(pipe_width=100).print("{kbroker}:watch:default [b]")
    assert capsys.readouterr().out == "{kbroker}:watch:default [b]\n"
