"""What a run that is resumed does with each of its tasks: rules, without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from kbroker.cli.journal import History, Place, digest
from kbroker.cli.task_file import TaskSpec
from kbroker.cli.task_progress import State
from kbroker.errors import UsageError

_NAMED = 3


class Todo(StrEnum):
    """What to do with a task."""

    TRY = "try"  # want it, as a new try
    ADOPT = "adopt"  # its last try may be under way: take that one over
    WAIT = "wait"  # its next try is due later
    DONE = "done"  # it has finished


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with a task, and as which try (from 1)."""

    todo: Todo
    number: int


def plan(history: History | None, *, cluster_gone: bool, again: bool) -> Plan:
    """What to do with one task.

    Args:
        history: what became of it so far; None for a task that was never tried.
        cluster_gone: whether the cluster of its last try has ended, and its pods with it.
        again: whether tasks that did not succeed are tried again.
    """
    if history is None or history.number == 0:
        return Plan(Todo.TRY, 1)
    if history.state is not None and not (again and history.state != State.SUCCESS):
        return Plan(Todo.DONE, history.number)
    if history.under_way and not cluster_gone:
        return Plan(Todo.ADOPT, history.number)
    waits = history.retry_at is not None
    return Plan(Todo.WAIT if waits else Todo.TRY, history.number + 1)


def check(
    specs: Iterable[TaskSpec],
    history: Mapping[str, History],
    before: Place | None,
    now: Place,
    run_id: str,
) -> list[str]:
    """See that a run can be resumed with these tasks, here; lines worth saying.

    Args:
        specs: the tasks as the file has them now.
        history: task id → what became of it.
        before: where it was worked on last.
        now: where it is to be worked on.
        run_id: of the run.

    Raises:
        UsageError: tries that may be under way could not be told from new ones.
    """
    under_way = {task for task, past in history.items() if past.under_way}
    elsewhere = before is not None and not before.own_cluster and before != now
    if under_way and elsewhere and before is not None:
        raise UsageError(
            f"run {run_id!r} has {len(under_way)} tasks under way in deployment "
            f"{before.deployment!r}, {before.cluster}/{before.namespace}: resume it there, or "
            "give this run another --run-id"
        )
    own = before is not None and before.own_cluster
    present = {spec.id: digest(spec) for spec in specs}
    changed = [
        task for task, past in history.items() if present.get(task, past.digest) != past.digest
    ]
    missing = [task for task in history if task not in present]
    if not own:
        _refuse(sorted(under_way.intersection(changed)), "changed in the task file")
        _refuse(sorted(under_way.intersection(missing)), "no longer in the task file")
    finished = [task for task in changed if history[task].state is not None]
    notes = []
    if finished:
        notes.append(
            f"changed since the last try: {_named(finished)}; what has finished is not run again"
        )
    return notes


def _refuse(tasks: list[str], how: str) -> None:
    if tasks:
        raise UsageError(
            f"may be under way, but {how}: {_named(tasks)}: put it back as it was, "
            "or give this run another --run-id"
        )


def _named(tasks: list[str]) -> str:
    some = ", ".join(repr(task) for task in tasks[:_NAMED])
    more = f" and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else ""
    return f"{'task' if len(tasks) == 1 else 'tasks'} {some}{more}"
