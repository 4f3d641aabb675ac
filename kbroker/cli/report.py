"""What a run came to: a table for people, JSON for machines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kbroker.cli.task_progress import State, TaskProgress
from kbroker.cli.task_run import TaskRun
from kbroker.cli.text import one_line
from kbroker.errors import BrokerUnavailableError
from kbroker.event import Outcome
from kbroker.inspection import LaunchTimes, launch_times
from kbroker.keys import RedisKeys
from kbroker.naming import make_safe_label_value
from kbroker.redis_client import connect

_STYLES = {
    State.SUCCESS: "green",
    State.FAILED: "red",
    State.CANCELLED: "yellow",
    State.LOST: "yellow",
}
# Of a longer run only what did not succeed is listed.
_ROWS = 200


@dataclass(frozen=True, slots=True)
class Report:
    """A run at its end.

    Attributes:
        run: the run.
        logs: folder of the containers' logs, where they are on this machine.
        times: task id → times of its last try.
    """

    run: TaskRun
    logs: Path | None = None
    times: dict[str, LaunchTimes] = field(default_factory=dict)

    @classmethod
    def of(cls, run: TaskRun, logs: Path | None) -> Report:
        """The report of a run that is over, with what Redis still knows of it."""
        broker = run.executor.config.broker
        client = connect(broker.url, broker.socket_timeout)
        try:
            launches = [task.launch for task in run.progress.values()]
            found = launch_times(client, RedisKeys(broker.prefix), launches)
        except BrokerUnavailableError:
            found = []
        finally:
            client.close()
        return cls(run, logs, dict(zip(run.progress, found, strict=False)))

    def as_json(self, *, interrupted: bool) -> dict[str, Any]:
        """One document; times in seconds."""
        run = self.run
        return {
            "run": run.name,
            "run_id": run.run_id,
            "as_expected": run.as_expected,
            "interrupted": interrupted,
            "counts": {state.value: count for state, count in run.counts().items()},
            "tasks": [self._task(task) for task in run.progress.values()],
        }

    def _task(self, task: TaskProgress) -> dict[str, Any]:
        outcome = task.outcome
        queue, launch, duration = self.spans(task)
        return {
            "id": task.spec.id,
            "state": task.state.value,
            "as_expected": task.as_expected,
            "tries": task.tries,
            "attempts": task.attempts,
            "cause": None if outcome is None or outcome.cause is None else outcome.cause.value,
            "exit_code": None if outcome is None else outcome.exit_code,
            "message": None if outcome is None else outcome.message,
            "pod": None if outcome is None else outcome.pod,
            "namespace": None if outcome is None else outcome.namespace,
            "log": None if outcome is None else self._log(outcome),
            "queue_seconds": queue,
            "launch_seconds": launch,
            "run_seconds": duration,
        }

    def spans(self, task: TaskProgress) -> tuple[float | None, float | None, float | None]:
        """Seconds of the last try in the queue, until its container started, and until it ended."""
        outcome = task.outcome
        if outcome is None:
            return None, None, None
        known = self.times.get(task.spec.id, LaunchTimes())
        granted, started, finished = known.granted_at, known.started_at, known.finished_at
        if granted is None or finished is None:  # Redis has lost them
            granted, finished = outcome.launched_at, outcome.finished_at
            started = outcome.started_at
        return (
            _span(outcome.queued_at, granted),
            _span(granted, started),
            _span(started, finished),
        )

    def _log(self, outcome: Outcome) -> str | None:
        """Path of a pod's log, where it is on this machine."""
        if self.logs is None or outcome.uid is None:
            return None
        return str(self.logs / outcome.namespace / outcome.pod / outcome.uid / "base.log")

    def link_logs(self, folder: Path) -> int:
        """Give each try's log a name that people find: `folder`/TASK.log; how many there are.

        A task's earlier tries are TASK.try-1.log and so on.
        """
        folder.mkdir(parents=True, exist_ok=True)
        links = 0
        for task in self.run.progress.values():
            name = make_safe_label_value(task.spec.id)
            for number, outcome in enumerate(task.outcomes, 1):
                log = self._log(outcome)
                if log is None or not Path(log).exists():
                    continue
                tried = "" if number == len(task.outcomes) else f".try-{number}"
                link = folder / f"{name}{tried}.log"
                link.unlink(missing_ok=True)
                link.symlink_to(os.path.relpath(log, folder))
                links += 1
        return links

    def print_table(self, console: Console) -> None:
        """One row a task, and why tasks failed."""
        tasks: Sequence[TaskProgress] = list(self.run.progress.values())
        if len(tasks) > _ROWS:
            tasks = [task for task in tasks if task.state is not State.SUCCESS][:_ROWS]
        if tasks:
            console.print(self._table(tasks))
        if not all(task.as_expected for task in tasks):
            console.print("* not what its line in the task file expects")
        if len(tasks) < len(self.run.progress):
            console.print(f"and {len(self.run.progress) - len(tasks)} more; --json has them all")
        for task in tasks:
            if task.outcome is not None and task.outcome.cause is not None:
                why = one_line(f"{task.spec.id}: {task.outcome}")
                console.print(Text(why), soft_wrap=True)

    def _table(self, tasks: Sequence[TaskProgress]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        # On a narrow terminal only the ids are cut.
        table.add_column("TASK", overflow="ellipsis", no_wrap=True, min_width=8, max_width=40)
        for column, width in (("STATE", 7), ("CAUSE", _widest_cause(tasks))):
            table.add_column(column, no_wrap=True, min_width=width)
        for column in ("EXIT", "TRIES", "ATTEMPTS", "QUEUE", "LAUNCH", "RUN"):
            table.add_column(column, justify="right", no_wrap=True, min_width=len(column))
        for task in tasks:
            outcome = task.outcome
            state = Text(task.state.value, style=_STYLES.get(task.state, ""))
            if not task.as_expected:
                state.append("*")
            table.add_row(
                Text(one_line(task.spec.id)),
                state,
                "" if outcome is None or outcome.cause is None else outcome.cause.value,
                "" if outcome is None or outcome.exit_code is None else str(outcome.exit_code),
                str(task.tries),
                str(task.attempts or ""),
                *(_seconds(span) for span in self.spans(task)),
            )
        return table


def _span(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else max(0.0, round(end - begin, 3))


def _widest_cause(tasks: Sequence[TaskProgress]) -> int:
    causes = [task.outcome.cause for task in tasks if task.outcome and task.outcome.cause]
    return max((len(cause.value) for cause in causes), default=len("CAUSE"))


def _seconds(span: float | None) -> str:
    return "" if span is None else f"{span:.1f}s"
