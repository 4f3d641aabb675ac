"""`kbroker run` and `kbroker demo`: the tasks of a file as pods."""

from __future__ import annotations

import secrets
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from kbroker.cli import options
from kbroker.cli.drive import drive
from kbroker.cli.report import as_json, print_table
from kbroker.cli.stack import Stack
from kbroker.cli.task_file import TaskSpec, read_tasks
from kbroker.cli.task_run import TaskRun
from kbroker.errors import UsageError
from kbroker.executor import KubernetesExecutor
from kbroker.kube_config import KubeConfig

DEMO = Path("config/examples/demo.jsonl")
_STATE = Path(".kbroker")
_PIPE_WIDTH = 120  # a pipe has no width; nothing needs to be cut for one
# So that an image that cannot be pulled is launched once more, and then given up.
_DEMO_SETTINGS = ["core.relaunch_limit=1", "kubernetes.create_window=4"]

TaskFile = Annotated[str, typer.Argument(help='JSON lines; "-" for standard input.')]
Launchers = Annotated[int, typer.Option(help="Launcher processes of --local.", min=1)]
Retries = Annotated[
    int, typer.Option(help="Tries after the first, where a task does not say.", min=0)
]


def run(
    tasks: TaskFile,
    local: Annotated[
        bool, typer.Option("--local", help="Start Redis, a local cluster and workers for this run.")
    ] = False,
    max_parallel: Annotated[
        int | None, typer.Option(help="Tasks that run at once.", min=1, metavar="N")
    ] = None,
    retries: Retries = 0,
    run_id: Annotated[
        str | None, typer.Option(help="Names this run; a new name by default.", metavar="ID")
    ] = None,
    launchers: Launchers = 2,
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    kubeconfig: options.Kubeconfig = None,
    namespace: options.Namespace = None,
    wait: options.Wait = 0.0,
) -> None:
    """Run the tasks of a file as pods and wait for them.

    Each line is a JSON object: id, command (a list of strings), and optionally
    retries, timeout (seconds), expect, and any field of executor_config: image,
    env, request_cpu, limit_memory, namespace, pod_override, ...

    Ctrl-C once stops launching and waits; twice cancels the pods.
    Exit code: 0 all as expected, 1 not, 2 usage error, 130 interrupted.

    Examples:
      kbroker run tasks.jsonl --local

      kbroker run tasks.jsonl --max-parallel 20 --retries 2 --namespace jobs

      echo '{"id": "hi", "command": ["echo", "hi"]}' | kbroker run - --local --json
    """
    specs = read_tasks(tasks)
    given = options.configuration(
        config, settings, kubeconfig, namespace, core__parallelism=max_parallel
    )
    name = "stdin" if tasks == "-" else Path(tasks).stem
    _run(specs, given, name, run_id, retries, launchers if local else 0, json, wait)


def demo(
    tasks: Annotated[str, typer.Option(help="Another task file.", metavar="FILE")] = str(DEMO),
    launchers: Launchers = 2,
    json: options.Json = False,
) -> None:
    """Run about fifty real tasks on this machine: Redis, a cluster, launchers, a watcher.

    Nothing needs to be installed or running. Some tasks are meant to fail; the exit
    code is 0 when every task ended as its line in the file expects.

    Examples:
      kbroker demo

      kbroker demo --launchers 4 --json
    """
    if not Path(tasks).exists():
        raise UsageError(f"{tasks}: not found; run this in a checkout, or name a file with --tasks")
    given = KubeConfig.load(env={}, overrides=dict(s.split("=") for s in _DEMO_SETTINGS))
    _run(read_tasks(tasks), given, "demo", None, 0, launchers, json, 0.0)


def _run(
    specs: list[TaskSpec],
    config: KubeConfig,
    name: str,
    run_id: str | None,
    retries: int,
    launchers: int,
    json: bool,
    wait: float,
) -> None:
    run_id = run_id or f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    console = Console(stderr=True)
    with ExitStack() as stacked:
        stack = None
        if launchers:
            stack = stacked.enter_context(Stack(config, _STATE / run_id, launchers))
            config = stack.config
            console.print(
                f"Redis at {config.broker.url}, kubeconfig at {config.kubernetes.kubeconfig}",
                highlight=False,
                soft_wrap=True,
            )
        else:
            options.wait_for(config, wait)
        executor = KubernetesExecutor(config)
        executor.start()
        stacked.callback(executor.end)
        task_run = TaskRun(specs, executor, name, run_id, retries)
        task_run.submit()
        code = drive(task_run, console, stack.check if stack else lambda: None)
        _report(task_run, json, stack.logs if stack else None)
        if stack is not None:
            tasks = f"{stack.logs}/NAMESPACE/POD/UID/base.log"
            say = f"logs of tasks: {tasks}, of kbroker: {stack.folder}/*.log"
            console.print(say, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def _report(task_run: TaskRun, json: bool, logs: Path | None) -> None:
    if json:
        document = orjson.dumps(as_json(task_run, logs), option=orjson.OPT_INDENT_2)
        sys.stdout.buffer.write(document + b"\n")
        sys.stdout.flush()
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    print_table(task_run, console)
