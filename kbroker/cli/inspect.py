"""`kbroker ps` and `kbroker logs`: what is wanted, and what its pods say."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sys
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.table import Table
from rich.text import Text

from kbroker.cli import options, preflight
from kbroker.cli.broker_log import LINES, print_log
from kbroker.cli.completion import complete_run, complete_task
from kbroker.cli.examples import examples
from kbroker.cli.selection import is_called, matches
from kbroker.cli.text import one_line, plain_console
from kbroker.errors import BrokerUnavailableError, ClusterError, UsageError
from kbroker.inspection import LaunchView, launches
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.naming import attempt_from_annotations, deployment_selector
from kbroker.pod import BASE
from kbroker.redis_client import connect

if TYPE_CHECKING:
    from kbroker.kube_client import KubeClient
    from kbroker.pod import Pod

_PAGE = 500
_LOOK_AGAIN = 0.5
_POD_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_STATES = ("published", "parked", "waiting", "pending", "running", "succeeded", "failed")
_COLUMNS = ("TASK", "STATE", "ATTEMPT", "AGE", "POD", "REASON")


@examples(
    "kbroker ps",
    "kbroker ps 'extract-*' --run nightly --state running",
    """kbroker ps --json | jq '.[] | select(.state == "waiting")'""",
)
def ps(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TASK]...",
            help="Only these: task ids, dag.task, launch ids, or patterns.",
            show_default=False,
            autocompletion=complete_task,
        ),
    ] = None,
    run_id: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            help="Only of this run; id or pattern.",
            metavar="RUN_ID",
            autocompletion=complete_run,
        ),
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only in this state.", metavar="STATE")
    ] = None,
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
) -> None:
    """List the launches that are wanted now, and why they wait.

    A state is published (no launcher has taken it), parked or waiting (no pod yet),
    pending (its container has not started), running, succeeded or failed (and not
    yet taken note of by its executor).

    Exit code: 0, 1 when Redis is away, 2 for a wrong command line.
    """
    unknown = set(state or ()) - set(_STATES)
    if unknown:
        raise UsageError(f"--state {min(unknown)!r}: must be one of {', '.join(_STATES)}")
    given = options.configuration(config, settings)
    preflight.require_redis(given)
    found = [
        view
        for view in _launches(given)
        if (not tasks or any(matches(view, name) for name in tasks))
        and (not run_id or any(is_called(view.key.run_id, run) for run in run_id))
        and (not state or view.state in state)
    ]
    if json:
        documents = [{**dataclasses.asdict(v), "key": v.key.as_list()} for v in found]
        sys.stdout.buffer.write(orjson.dumps(documents, option=orjson.OPT_INDENT_2) + b"\n")
        sys.stdout.flush()
        return
    if not found:
        typer.echo("nothing of that is wanted" if tasks or run_id or state else "nothing is wanted")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for view in found:
        cells = (
            f"{view.key.dag_id}.{view.key.task_id}",
            view.state,
            str(view.attempt),
            f"{view.age:.0f}s",
            view.pod,
            view.reason,
        )
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    # Whoever reads a pipe wants whole lines.
    plain_console(pipe_width=_widest(found)).print(table)


def _widest(found: list[LaunchView]) -> int:
    """Width that cuts no cell."""
    longest = max(
        len(v.key.dag_id) + len(v.key.task_id) + len(v.pod) + len(v.reason) for v in found
    )
    return 2 * longest + 60


@examples(
    "kbroker logs extract -f",
    "kbroker logs dag-extract-0f3a9c... --tail 20",
    "kbroker logs extract --through-broker",
)
def logs(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK_OR_POD",
            help="A task's id, or a pod's name.",
            autocompletion=complete_task,
        ),
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for its start, and for more.")
    ] = False,
    tail: Annotated[int | None, typer.Option(help="Only the last lines.", min=0)] = None,
    container: Annotated[str, typer.Option(help="Which container.")] = BASE,
    through_broker: Annotated[
        bool,
        typer.Option(
            "--through-broker", help="Ask a launcher, where only Redis can be reached from here."
        ),
    ] = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    kubeconfig: options.Kubeconfig = None,
    namespace: options.Namespace = None,
) -> None:
    """Print the log of a task's pod, from Kubernetes.

    Of a task with several pods the newest one counts. Pods of finished tasks are
    deleted, and their logs with them, unless kubernetes.delete_worker_pods is false.
    With --through-broker the last 100 lines come by way of a launcher, and why a task
    waits, or has no log, is told on standard error.

    Exit code: 0, 1 when there is no such pod, no log or no cluster, 2 for a wrong command
    line.
    """
    given = options.configuration(config, settings, kubeconfig, namespace)
    if through_broker:
        if follow or container != BASE:
            raise UsageError("--through-broker shows the end of the log of container base only")
        print_log(given, task, LINES if tail is None else tail)
        return
    asyncio.run(_print_log(given, task, container, follow, tail))


def _launches(config: KubeConfig) -> list[LaunchView]:
    client = connect(config.broker.url, config.broker.socket_timeout)
    try:
        return launches(client, RedisKeys(config.broker.prefix))
    finally:
        client.close()


async def _print_log(
    config: KubeConfig, task: str, container: str, follow: bool, tail: int | None
) -> None:
    from kbroker.kube_client import ApiError, KubeClient  # noqa: PLC0415 - an extra

    kube = await KubeClient.connect(config.kubernetes)
    try:
        pod, namespace = await _find(kube, config, task)
        while True:
            pieces = kube.pod_log(namespace, pod, container=container, follow=follow, tail=tail)
            try:
                async for piece in pieces:
                    sys.stdout.buffer.write(piece)
                    sys.stdout.flush()
                return
            except ApiError as error:
                if not (follow and error.status == 400 and "waiting to start" in str(error)):
                    raise
            await asyncio.sleep(_LOOK_AGAIN)
    except ApiError as error:
        if error.status == 404:
            raise ClusterError(_no_pod(task, config)) from error
        raise ClusterError(f"{kube.server}: {error}") from error
    finally:
        await kube.close()


async def _find(kube: KubeClient, config: KubeConfig, task: str) -> tuple[str, str]:
    """Name and namespace of the pod that is called so, or runs the task of that id.

    Redis knows the pods of what is wanted in every namespace; Kubernetes those of one.
    """
    namespace = config.kubernetes.namespace
    wanted = [view for view in _wanted(config) if task in (view.pod, view.key.task_id)]
    several = {view.key.dag_id for view in wanted if view.key.task_id == task}
    if len(several) > 1:
        pods = ", ".join(sorted(view.pod or "none yet" for view in wanted))
        raise UsageError(f"task {task!r} is wanted by several runs; name a pod: {pods}")
    if wanted and wanted[-1].pod:
        return wanted[-1].pod, wanted[-1].namespace
    found = await _pods_of(kube, config, task)
    if found:
        return max(found, key=lambda pod: pod.metadata.creation_timestamp or "").name, namespace
    if wanted:
        why = wanted[-1].reason or "no launcher has taken it yet"
        raise ClusterError(f"task {task!r} has no pod yet: {why}")
    if _POD_NAME.fullmatch(task):
        return task, namespace  # of somebody else, perhaps
    raise ClusterError(_no_pod(task, config))


def _wanted(config: KubeConfig) -> list[LaunchView]:
    if not config.broker.url:
        return []
    try:
        return _launches(config)
    except BrokerUnavailableError:
        return []  # the log is in Kubernetes


async def _pods_of(kube: KubeClient, config: KubeConfig, task: str) -> list[Pod]:
    selector = deployment_selector(config.core.deployment)
    found: list[Pod] = []
    token: str | None = None
    while True:
        page = await kube.list_pods(
            config.kubernetes.namespace, selector, limit=_PAGE, continue_token=token
        )
        found += [pod for pod in page.items if _is(pod, task)]
        token = page.metadata.continue_token
        if not token:
            return found


def _is(pod: Pod, task: str) -> bool:
    attempt = attempt_from_annotations(pod.annotations)
    return pod.name == task or (attempt is not None and attempt.launch.key.task_id == task)


def _no_pod(task: str, config: KubeConfig) -> str:
    return (
        f"no pod {task!r}, nor one of a task called so, in namespace "
        f"{config.kubernetes.namespace!r}: it may have finished and be deleted; "
        "kbroker ps lists what is wanted"
    )
