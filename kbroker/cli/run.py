"""`kbroker run` and `kbroker demo`: the tasks of a file as pods."""

from __future__ import annotations

import secrets
import sys
import sysconfig
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

import kbroker
from kbroker.cli import options, preflight
from kbroker.cli.drive import drive
from kbroker.cli.examples import examples
from kbroker.cli.report import Report
from kbroker.cli.stack import Stack
from kbroker.cli.task_file import TaskSpec, read_tasks
from kbroker.cli.task_run import TaskRun
from kbroker.cli.text import plain_console
from kbroker.errors import UsageError
from kbroker.executor import KubernetesExecutor
from kbroker.kube_config import KubeConfig

_STATE = Path(".kbroker")
_PIPE_WIDTH = 120  # a pipe has no width; nothing needs to be cut for one
# So that an image that cannot be pulled is launched once more, and then given up.
_DEMO_SETTINGS = {"core.relaunch_limit": 1, "kubernetes.create_window": 4}

TaskFile = Annotated[str, typer.Argument(metavar="TASKS", help='JSON lines; "-" for stdin.')]
Launchers = Annotated[int, typer.Option(help="Launcher processes of --local.", min=1)]
Retries = Annotated[
    int, typer.Option(help="Tries after the first, where a task does not say.", min=0)
]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to run, and how.

    Attributes:
        specs: the tasks.
        name: of the run.
        run_id: of the run.
        config: the configuration.
        launchers: launcher processes to start here, with everything else; 0 to use what runs.
        own_cluster: whether to start a cluster, too.
        retries: tries after the first, where a task does not say.
        json: whether to print JSON.
        wait: seconds to wait for Redis.
    """

    specs: list[TaskSpec]
    name: str
    run_id: str
    config: KubeConfig
    launchers: int = 0
    own_cluster: bool = True
    retries: int = 0
    json: bool = False
    wait: float = 0.0


@examples(
    "kbroker run tasks.jsonl --local",
    "kbroker run tasks.jsonl --max-parallel 20 --retries 2 --namespace jobs",
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
    retries, timeout (seconds), expect ({"state": "failed", "cause": "image_pull"}
    where a failure is what should happen), and any field of executor_config:
    image, env, request_cpu, limit_memory, namespace, pod_override, ...

    With --local nothing else is needed: Redis, launchers and a watcher are started
    for this run, and a local cluster, unless --kubeconfig names one. Otherwise the
    configured Redis is used, and launchers and a watcher must be running.

    Ctrl-C once stops launching and waits for what runs; twice cancels the pods.

    Exit code: 0 all as expected, 1 not, 2 usage error, 130 interrupted.
    """
    specs = read_tasks(tasks)
    given = options.configuration(
        config, settings, kubeconfig, namespace, core__parallelism=max_parallel
    )
    if run_id == "":
        raise UsageError("--run-id must not be empty")
    if local and given.source("broker.url").startswith("argument"):
        raise UsageError("--local starts a Redis of its own: leave out --local or broker.url")
    name = "stdin" if tasks == "-" else Path(tasks).stem
    _run(
        _Wanted(
            specs,
            name,
            run_id or _new_id(),
            given,
            launchers=launchers if local else 0,
            own_cluster=not given.source("kubernetes.kubeconfig").startswith("argument"),
            retries=retries,
            json=json,
            wait=wait,
        )
    )


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
    _run(_Wanted(specs, "demo", _new_id(), given, launchers=launchers, json=json))


def _demo_file() -> Path:
    """The demo's tasks, in a checkout or where an installation has put them."""
    checkout = Path(kbroker.__file__).parents[1] / "config" / "examples"
    installed = Path(sysconfig.get_path("data")) / "share" / "kbroker" / "examples"
    for folder in (checkout, installed):
        path = folder / "demo.jsonl"
        if path.exists():
            return path
    raise UsageError(f"{installed}/demo.jsonl: not found; name a task file with --tasks")


def _new_id() -> str:
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _run(wanted: _Wanted) -> None:
    console = plain_console(stderr=True)
    with ExitStack() as stacked:
        stack = None
        config = wanted.config
        if wanted.launchers:
            # Not the run's id: the user may have named it, and any text will do for that.
            folder = _STATE / _new_id()
            stack = stacked.enter_context(
                Stack(config, folder, wanted.launchers, own_cluster=wanted.own_cluster)
            )
            config = stack.config
            _say_how_to_look(console, config)
        else:
            preflight.within(wanted.wait, lambda: preflight.require_redis(config))
            if not wanted.own_cluster:  # named on the command line: it should be there
                preflight.require_cluster(config)
        executor = KubernetesExecutor(config)
        executor.start()
        stacked.callback(executor.end)
        task_run = TaskRun(wanted.specs, executor, wanted.name, wanted.run_id, wanted.retries)
        task_run.submit()
        code = drive(task_run, console, stack.check if stack else lambda: None)
        report = Report.of(task_run, stack.logs if stack else None)
        _print(report, wanted.json)
        if stack is not None:
            _say(console, _where_logs_are(report, stack))
    raise typer.Exit(code)


def _print(report: Report, json: bool) -> None:
    if json:
        document = report.as_json(interrupted=report.run.interrupts > 0)
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        sys.stdout.flush()
        return
    report.print_table(plain_console(pipe_width=_PIPE_WIDTH))


def _where_logs_are(report: Report, stack: Stack) -> str:
    workers = f"logs of kbroker: {stack.folder}/*.log"
    if stack.logs is None:
        return workers
    links = stack.folder / "logs"
    report.link_logs(links)
    return f"logs of tasks: {links}/TASK.log\n{workers}"


def _say_how_to_look(console: Console, config: KubeConfig) -> None:
    prefix, kubernetes = config.broker.prefix, config.kubernetes
    watch = f"{prefix}watch:{kubernetes.cluster}:{kubernetes.namespace}"
    _say(
        console,
        "while it runs, look inside with:\n"
        f"  redis-cli -u {config.broker.url} hgetall '{watch}'\n"
        f"  redis-cli -u {config.broker.url} keys '{prefix}*'\n"
        f"  kubectl --kubeconfig {kubernetes.kubeconfig} get pods -w",
    )


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True)
