"""What a shell offers for a task or a run: what is wanted now, or nothing, but at once."""

from __future__ import annotations

import typer

from kbroker.cli import options
from kbroker.errors import KbrokerError
from kbroker.inspection import LaunchView, launches
from kbroker.keys import RedisKeys
from kbroker.redis_client import connect

# Whoever presses Tab waits: each call of Redis has half of 200 ms at most.
_TIMEOUT = 0.1
_MOST = 200


def complete_task(context: typer.Context, incomplete: str) -> list[str]:
    """Task ids, and dag.task once the DAG's name is typed."""
    found: set[str] = set()
    for view in _wanted(context):
        found.update((view.key.task_id, f"{view.key.dag_id}.{view.key.task_id}"))
    return sorted(name for name in found if name.startswith(incomplete))


def complete_run(context: typer.Context, incomplete: str) -> list[str]:
    """Run ids."""
    found = {view.key.run_id for view in _wanted(context)}
    return sorted(name for name in found if name.startswith(incomplete))


def _wanted(context: typer.Context) -> list[LaunchView]:
    try:
        given = options.configuration(context.params.get("config"), context.params.get("settings"))
        if not given.broker.url:
            return []
        client = connect(given.broker.url, _TIMEOUT)
        try:
            return launches(client, RedisKeys(given.broker.prefix), _MOST)
        finally:
            client.close()
    except (KbrokerError, OSError):
        return []  # a shell's completion says nothing of what is wrong
