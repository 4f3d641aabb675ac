"""Which launches a command line means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import redis

from kbroker.errors import UsageError
from kbroker.inspection import LaunchView
from kbroker.keys import RedisKeys
from kbroker.launch_detail import Detail, detail, find
from kbroker.task import TaskKey


@dataclass(frozen=True, slots=True)
class Selection:
    """What was found.

    Attributes:
        found: the launches, each once, in the order they were published.
        missing: names that nothing wanted is called.
        by_pattern: whether a pattern, a run or --all selected more than names did.
    """

    found: list[LaunchView]
    missing: list[str]
    by_pattern: bool


def select(
    views: Sequence[LaunchView],
    names: Sequence[str],
    runs: Sequence[str] = (),
    *,
    everything: bool = False,
) -> Selection:
    """Choose launches by task id, "dag.task", launch id, or shell-style patterns of these.

    Args:
        views: what is wanted.
        names: a launch is meant that one of them names; with none, every one of `runs`.
        runs: only launches of these runs; ids or patterns.
        everything: every launch, of these runs if there are any.

    Raises:
        UsageError: a name without a pattern is that of tasks in several runs.
    """
    inside = [v for v in views if not runs or any(is_called(v.key.run_id, run) for run in runs)]
    if everything or not names:
        return Selection(list(inside), [], by_pattern=True)
    chosen: set[str] = set()
    missing = []
    for name in names:
        found = [v for v in inside if matches(v, name)]
        origins = sorted({v.key.run_id for v in found})
        if len(origins) > 1 and not is_pattern(name) and not runs:
            raise UsageError(
                f"task {name!r} is wanted by several runs, {', '.join(origins[:5])}: "
                "choose with --run, or name a launch id"
            )
        if not found:
            missing.append(name)
        chosen.update(v.digest for v in found)
    by_pattern = any(is_pattern(name) for name in names)
    return Selection([v for v in inside if v.digest in chosen], missing, by_pattern)


def newest(
    client: redis.Redis, keys: RedisKeys, task: str, run_id: str | None = None
) -> Detail | None:
    """The newest recorded launch that is called so, a finished one too; None without any.

    Args:
        client: Redis.
        keys: names.
        task: see `called`.
        run_id: only a launch of this run.

    Raises:
        BrokerUnavailableError: Redis is away.
    """

    def wanted(key: TaskKey, launch_id: str) -> bool:
        return task in called(key, launch_id) and (run_id is None or key.run_id == run_id)

    for digest, _ in find(client, keys, wanted):
        seen = detail(client, keys, digest)
        if seen is not None:
            return seen
    return None


def matches(view: LaunchView, name: str) -> bool:
    """Whether a name or pattern means this launch."""
    return any(is_called(one, name) for one in called(view.key, view.launch_id))


def called(key: TaskKey, launch_id: str) -> tuple[str, ...]:
    """What a user may call a launch."""
    mapped = f"{key.task_id}[{key.map_index}]"
    return (key.task_id, f"{key.dag_id}.{key.task_id}", launch_id, mapped)


def is_pattern(name: str) -> bool:
    """Whether it has a character that stands for others."""
    return any(character in name for character in "*?[")


def is_called(one: str, name: str) -> bool:
    """Whether a name, or a shell-style pattern, means this."""
    return one == name or (is_pattern(name) and fnmatchcase(one, name))
