"""What a run came to: a table for people, JSON for machines."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kbroker.cli.task_run import State, TaskProgress, TaskRun

_STYLES = {State.SUCCESS: "green", State.FAILED: "red", State.CANCELLED: "yellow"}


def as_json(run: TaskRun, logs: Path | None) -> dict[str, Any]:
    """The run as one document; times in seconds.

    Args:
        run: the run.
        logs: folder of the containers' logs, where they are on this machine.
    """
    return {
        "run": run.name,
        "run_id": run.run_id,
        "as_expected": run.as_expected,
        "counts": {state.value: count for state, count in run.counts().items()},
        "tasks": [_task_json(task, logs) for task in run.progress.values()],
    }


def _task_json(task: TaskProgress, logs: Path | None) -> dict[str, Any]:
    outcome = task.outcome
    queue, launch, duration = times(task)
    return {
        "id": task.spec.id,
        "state": task.state.value,
        "as_expected": task.as_expected,
        "tries": task.tries,
        "attempts": None if outcome is None else outcome.attempts,
        "cause": None if outcome is None or outcome.cause is None else outcome.cause.value,
        "exit_code": None if outcome is None else outcome.exit_code,
        "message": None if outcome is None else outcome.message,
        "pod": None if outcome is None else outcome.pod,
        "log": log_of(task, logs),
        "queue_seconds": queue,
        "launch_seconds": launch,
        "run_seconds": duration,
    }


def log_of(task: TaskProgress, logs: Path | None) -> str | None:
    """Path of the log of a task's last pod, where it is on this machine."""
    outcome = task.outcome
    if logs is None or outcome is None or outcome.uid is None:
        return None
    return str(logs / outcome.namespace / outcome.pod / outcome.uid / "base.log")


def times(task: TaskProgress) -> tuple[float | None, float | None, float | None]:
    """Seconds until the pod was seen, until its container started, and until it ended."""
    outcome = task.outcome
    if outcome is None:
        return None, None, None
    moments = (outcome.queued_at, outcome.launched_at, outcome.started_at, outcome.finished_at)
    spans = [
        None if a is None or b is None else max(0.0, round(b - a, 3))
        for a, b in itertools.pairwise(moments)
    ]
    return spans[0], spans[1], spans[2]


def print_table(run: TaskRun, console: Console) -> None:
    """One row a task."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    # On a narrow terminal only the ids are cut.
    table.add_column("TASK", overflow="ellipsis", no_wrap=True, min_width=8, max_width=40)
    for column, width in (("STATE", 7), ("CAUSE", _widest_cause(run))):
        table.add_column(column, no_wrap=True, min_width=width)
    for column in ("EXIT", "TRIES", "ATTEMPTS", "QUEUE", "LAUNCH", "RUN"):
        table.add_column(column, justify="right", no_wrap=True, min_width=len(column))
    for task in run.progress.values():
        outcome = task.outcome
        state = Text(task.state.value, style=_STYLES.get(task.state, ""))
        if not task.as_expected:
            state.append(" (not expected)")
        table.add_row(
            task.spec.id,
            state,
            "" if outcome is None or outcome.cause is None else outcome.cause.value,
            "" if outcome is None or outcome.exit_code is None else str(outcome.exit_code),
            str(task.tries),
            "" if outcome is None else str(outcome.attempts),
            *(_seconds(span) for span in times(task)),
        )
    console.print(table)
    for task in run.progress.values():
        if task.outcome is not None and task.outcome.cause is not None:
            console.print(Text(f"{task.spec.id}: {task.outcome}"), soft_wrap=True)


def _widest_cause(run: TaskRun) -> int:
    causes = [t.outcome.cause for t in run.progress.values() if t.outcome and t.outcome.cause]
    return max((len(cause.value) for cause in causes), default=len("CAUSE"))


def _seconds(span: float | None) -> str:
    return "" if span is None else f"{span:.1f}s"
