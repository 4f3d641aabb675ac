"""`kbroker render`: the manifest that would be created, and nothing created."""

from __future__ import annotations

import difflib
import sys
import time
from enum import StrEnum
from typing import Annotated

import orjson
import typer
import yaml

from kbroker.cli import options
from kbroker.cli.examples import examples
from kbroker.cli.task_file import TaskSpec, read_tasks
from kbroker.cli.task_progress import try_launch
from kbroker.errors import UsageError
from kbroker.kube_config import KubeConfig
from kbroker.manifests import Manifests
from kbroker.message import LaunchRequest
from kbroker.tracked import track


class Format(StrEnum):
    """How a manifest is printed."""

    YAML = "yaml"
    JSON = "json"


@examples(
    "kbroker render tasks.jsonl --task hello",
    "kbroker render tasks.yaml --task hello | kubectl apply --dry-run=server -f -",
    "kbroker render tasks.jsonl --output json | jq .spec",
)
def render(
    tasks: Annotated[
        str, typer.Argument(metavar="TASKS", help='JSON lines or YAML; "-" for stdin.')
    ],
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="Which task; needed where there are several."),
    ] = None,
    run_id: Annotated[str, typer.Option(help="Of the run that it would belong to.")] = "render",
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print it.")] = (
        Format.YAML
    ),
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    namespace: options.Namespace = None,
) -> None:
    """Print the pod that a launcher would create for a task, as its first attempt.

    It is made as launchers make it: template, configuration, the task's own keys, its
    pod_override. The task's command stands in it. A launcher adds the time until which
    the pod may be created.

    Exit code: 0, or 2 when the task or its pod is not usable.
    """
    given = options.configuration(config, settings, None, namespace)
    specs = read_tasks(tasks)
    manifest = manifest_of(given, _chosen(specs, task), run_id)
    if json or output is Format.JSON:
        sys.stdout.buffer.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
        sys.stdout.flush()
        return
    typer.echo(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True), nl=False)


def manifest_of(config: KubeConfig, spec: TaskSpec, run_id: str) -> dict[str, object]:
    """The pod of a task's first attempt.

    Raises:
        TemplateError, ExecutorConfigError: it is not usable as a pod.
    """
    launch = try_launch(config.core.deployment, "render", run_id, spec.id, 1)
    request = LaunchRequest(launch.key, spec.command, launch.launch_id, executor_config=spec.config)
    tracked = track(request, config, config.core.executor_id or "render", time.time())
    return Manifests(config.kubernetes).build(tracked.message, None)


def _chosen(specs: list[TaskSpec], task: str | None) -> TaskSpec:
    names = [spec.id for spec in specs]
    if task is None:
        if len(specs) > 1:
            raise UsageError(
                f"name one of the {len(specs)} tasks with --task, such as {names[0]!r}"
            )
        return specs[0]
    for spec in specs:
        if spec.id == task:
            return spec
    close = difflib.get_close_matches(task, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names[:5])}"
    raise UsageError(f"there is no task {task!r}{hint}")
