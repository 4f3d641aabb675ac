"""`kbroker run` and `kbroker demo`: the tasks of a file as pods."""

from __future__ import annotations

import math
import sysconfig
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import kbroker
from kbroker.cli import options
from kbroker.cli.examples import examples
from kbroker.cli.session import RUNS, Wanted, conduct, new_id
from kbroker.cli.task_file import TaskSpec, read_tasks
from kbroker.cli.task_run import Policy
from kbroker.errors import UsageError
from kbroker.kube_config import KubeConfig

# So that an image that cannot be pulled is launched once more, and then given up.
_DEMO_SETTINGS = {"core.relaunch_limit": 1, "kubernetes.create_window": 4}

TaskFile = Annotated[
    str, typer.Argument(metavar="TASKS", help='JSON lines or YAML; "-" for stdin.')
]
Launchers = Annotated[int, typer.Option(help="Launcher processes of --local.", min=1)]
Retries = Annotated[
    int, typer.Option(help="Tries after the first, where a task does not say.", min=0)
]


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


@examples(
    "kbroker run tasks.jsonl --local",
    "kbroker run tasks.yaml --max-parallel 20 --retries 2 --namespace jobs",
    "kbroker run tasks.jsonl --run-id nightly        # the same again: goes on where it was",
    "kbroker run tasks.jsonl --fail-fast --timeout 600 --logs logs/",
    """echo '{"id": "hi", "command": ["echo", "hi"]}' | kbroker run - --local --json""",
)
def run(
    tasks: TaskFile,
    local: Annotated[
        bool,
        typer.Option("--local", help="Start Redis, a cluster and workers here, for this run."),
    ] = False,
    max_parallel: Annotated[
        int | None, typer.Option(help="Tasks that run at once.", min=1, metavar="N")
    ] = None,
    retries: Retries = 0,
    retry_delay: Annotated[
        float,
        typer.Option(help="Wait before the second try; doubles.", min=0, metavar="SECONDS"),
    ] = 1.0,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="How long a task may run, where it does not say.", min=0.1, metavar="SECONDS"
        ),
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Cancel all when one ends other than expected.")
    ] = False,
    run_id: Annotated[
        str | None,
        typer.Option(help="Names this run; a known one goes on. A new name by default."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Going on, try again what did not succeed.")
    ] = False,
    journal_dir: Annotated[
        Path, typer.Option(help="Where runs are remembered.", metavar="DIR")
    ] = RUNS,
    logs: Annotated[
        Path | None, typer.Option(help="Keep each task's log as DIR/TASK.log.", metavar="DIR")
    ] = None,
    output: Annotated[Output, typer.Option(help="How to print the result.")] = Output.TABLE,
    launchers: Launchers = 2,
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    kubeconfig: options.Kubeconfig = None,
    namespace: options.Namespace = None,
    wait: options.Wait = 0.0,
) -> None:
    """Run the tasks of a file as pods and wait for them.

    A task is a line of JSON, or an entry of a YAML list: id, command (a list of strings),
    and optionally retries, timeout (seconds), expect ({"state": "failed", "cause":
    "image_pull"} where a failure is what should happen), and any field of
    executor_config: image, env, request_cpu, limit_memory, namespace, pod_override, ...

    With --local nothing else is needed: Redis, launchers and a watcher are started
    for this run, and a local cluster, unless --kubeconfig names one. Otherwise the
    configured Redis is used, and launchers and a watcher must be running.

    A run is remembered in a journal. With the same --run-id again it goes on with what
    is not done, and takes over what is under way; a task that has finished is never run
    again, even if Redis has lost everything. The pods of a local cluster end with their
    run: going on, they are tried anew.

    Ctrl-C once stops launching and waits for what runs; twice cancels the pods.

    Exit code: 0 all as expected, 1 not, 2 usage error, 130 interrupted.
    """
    specs = with_timeout(read_tasks(tasks), timeout)
    given = options.configuration(
        config, settings, kubeconfig, namespace, core__parallelism=max_parallel
    )
    if run_id == "":
        raise UsageError("--run-id must not be empty")
    if local and given.source("broker.url").startswith("argument"):
        raise UsageError("--local starts a Redis of its own: leave out --local or broker.url")
    name = "stdin" if tasks == "-" else Path(tasks).stem
    conduct(
        Wanted(
            specs,
            name,
            run_id or new_id(),
            given,
            launchers=launchers if local else 0,
            own_cluster=not given.source("kubernetes.kubeconfig").startswith("argument"),
            policy=Policy(retries, retry_delay, fail_fast, again=retry_failed),
            json=json or output is Output.JSON,
            wait=wait,
            journals=journal_dir,
            logs=logs,
        )
    )


def with_timeout(specs: list[TaskSpec], seconds: float | None) -> list[TaskSpec]:
    """The tasks with a time limit, where they do not have their own."""
    if seconds is None:
        return specs
    limit = {"active_deadline_seconds": math.ceil(seconds)}
    return [replace(spec, config={**limit, **spec.config}) for spec in specs]


@examples("kbroker demo", "kbroker demo --launchers 4 --json")
def demo(
    tasks: Annotated[
        str | None, typer.Option(help="Another task file.", metavar="FILE", show_default=False)
    ] = None,
    launchers: Launchers = 2,
    json: options.Json = False,
) -> None:
    """Run about fifty real tasks on this machine: Redis, a cluster, launchers, a watcher.

    Nothing needs to be installed or running. Some tasks are meant to fail; the exit
    code is 0 when every task ended as its line in the file expects.
    """
    given = KubeConfig.load(env={}, overrides=_DEMO_SETTINGS)
    specs = read_tasks(tasks or str(_demo_file()))
    conduct(Wanted(specs, "demo", new_id(), given, launchers=launchers, json=json))


def _demo_file() -> Path:
    """The demo's tasks, in a checkout or where an installation has put them."""
    checkout = Path(kbroker.__file__).parents[1] / "config" / "examples"
    installed = Path(sysconfig.get_path("data")) / "share" / "kbroker" / "examples"
    for folder in (checkout, installed):
        path = folder / "demo.jsonl"
        if path.exists():
            return path
    raise UsageError(f"{installed}/demo.jsonl: not found; name a task file with --tasks")
