"""`kbroker ps` and `kbroker logs`: what is wanted, and what its pods say."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from kbroker.cli import options
from kbroker.errors import ClusterError, UsageError
from kbroker.inspection import LaunchView, launches
from kbroker.keys import RedisKeys
from kbroker.kube_client import ApiError, KubeClient
from kbroker.kube_config import KubeConfig
from kbroker.redis_client import connect


def ps(
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
) -> None:
    """List the launches that are wanted now, and why they wait.

    Examples:
      kbroker ps

      kbroker ps --json | jq '.[] | select(.state == "waiting")'
    """
    given = options.configuration(config, settings)
    options.require_redis(given)
    found = _launches(given)
    if json:
        documents = [{**dataclasses.asdict(v), "key": v.key.as_list()} for v in found]
        sys.stdout.buffer.write(orjson.dumps(documents, option=orjson.OPT_INDENT_2) + b"\n")
        sys.stdout.flush()
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("TASK", "STATE", "ATTEMPT", "AGE", "POD", "REASON"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for view in found:
        task = f"{view.key.dag_id}.{view.key.task_id}"
        age = f"{view.age:.0f}s"
        table.add_row(task, view.state, str(view.attempt), age, view.pod, view.reason)
    Console().print(table if found else "nothing is wanted")


def logs(
    task: Annotated[str, typer.Argument(help="Id of a task that is wanted now, or a pod's name.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    tail: Annotated[int | None, typer.Option(help="Only the last lines.", min=0)] = None,
    container: Annotated[str, typer.Option(help="Which container.")] = "base",
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    kubeconfig: options.Kubeconfig = None,
    namespace: options.Namespace = None,
) -> None:
    """Print the log of a task's pod.

    Examples:
      kbroker logs extract -f

      kbroker logs dag-extract-0f3a9c... --tail 20
    """
    given = options.configuration(config, settings, kubeconfig, namespace)
    pod, where = task, given.kubernetes.namespace
    if given.broker.url:
        named = [v for v in _launches(given) if v.key.task_id == task and v.pod]
        if len(named) > 1:
            pods = ", ".join(view.pod for view in named)
            raise UsageError(f"task {task!r} has several pods; name one: {pods}")
        if named:
            pod, where = named[0].pod, named[0].namespace
    asyncio.run(_print_log(given, where, pod, container, follow, tail))


def _launches(config: KubeConfig) -> list[LaunchView]:
    client = connect(config.broker.url, config.broker.socket_timeout)
    try:
        return launches(client, RedisKeys(config.broker.prefix))
    finally:
        client.close()


async def _print_log(
    config: KubeConfig, namespace: str, pod: str, container: str, follow: bool, tail: int | None
) -> None:
    kube = await KubeClient.connect(config.kubernetes)
    try:
        async for piece in kube.pod_log(
            namespace, pod, container=container, follow=follow, tail=tail
        ):
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
    except ApiError as error:
        if error.status == 404:
            raise ClusterError(
                f"no pod {pod!r} in namespace {namespace!r}: it may have finished and be deleted; "
                "kbroker ps lists what is wanted"
            ) from error
        raise ClusterError(f"{kube.server}: {error}") from error
    finally:
        await kube.close()
