"""`kbroker logs --through-broker`: the end of a task's log, by way of a launcher."""

from __future__ import annotations

import sys

import typer

from kbroker.cli import preflight
from kbroker.cli.selection import newest
from kbroker.cli.text import one_line
from kbroker.errors import ClusterError, UsageError
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.log_message import MOST_LINES
from kbroker.redis_client import connect
from kbroker.task_log import task_log

LINES = 100


def print_log(config: KubeConfig, task: str, lines: int) -> None:
    """Print the log of the newest launch that is called so; what is beside it, to stderr.

    Args:
        config: names the Redis.
        task: a task's id, "dag.task", or a launch id.
        lines: how many last lines.

    Raises:
        UsageError: so many lines cannot be asked for, or no Redis is configured.
        BrokerUnavailableError: Redis is away.
        ClusterError: no such task is recorded.
        typer.Exit: with code 1, there is no log.
    """
    if not 1 <= lines <= MOST_LINES:
        raise UsageError(f"--tail {lines}: must be from 1 to {MOST_LINES} with --through-broker")
    preflight.require_redis(config)
    client = connect(config.broker.url, config.broker.socket_timeout)
    try:
        seen = newest(client, RedisKeys(config.broker.prefix), task)
        if seen is None:
            raise ClusterError(f"no task {task!r} is recorded; see: kbroker ps")
        log = task_log(client, config, seen.launch, lines=lines)
    finally:
        client.close()
    sys.stdout.buffer.write(log.text.encode())
    sys.stdout.flush()
    for note in log.notes:
        typer.echo(f"kbroker: {one_line(note)}", err=True)
    if not log.text:
        raise typer.Exit(1)
