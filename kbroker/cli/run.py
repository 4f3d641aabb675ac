"""`kbroker run` and `kbroker demo`: the tasks of a file as pods."""

from __future__ import annotations

import hashlib
import math
import secrets
import sys
import sysconfig
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

import kbroker
from kbroker.cli import options, preflight
from kbroker.cli.drive import drive
from kbroker.cli.examples import examples
from kbroker.cli.journal import Journal, Place
from kbroker.cli.leftovers import let_go_of_finished
from kbroker.cli.report import Report
from kbroker.cli.resumption import check
from kbroker.cli.stack import Stack, with_defaults
from kbroker.cli.task_file import TaskSpec, read_tasks
from kbroker.cli.task_logs import TaskLogs
from kbroker.cli.task_run import Policy, TaskRun
from kbroker.cli.text import plain_console
from kbroker.errors import UsageError
from kbroker.executor import KubernetesExecutor
from kbroker.kube_config import KubeConfig

_STATE = Path(".kbroker")
_RUNS = _STATE / "runs"
_PIPE_WIDTH = 120  # a pipe has no width; nothing needs to be cut for one
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
        policy: what to do about failures.
        json: whether to print JSON.
        wait: seconds to wait for Redis.
        journals: folder of the runs' journals.
        logs: folder for the tasks' logs; None to keep none.
    """

    specs: list[TaskSpec]
    name: str
    run_id: str
    config: KubeConfig
    launchers: int = 0
    own_cluster: bool = True
    policy: Policy = field(default_factory=Policy)
    json: bool = False
    wait: float = 0.0
    journals: Path = _RUNS
    logs: Path | None = None

    @property
    def starts_cluster(self) -> bool:
        """Whether the cluster ends with this process."""
        return self.launchers > 0 and self.own_cluster


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
    ] = _RUNS,
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
    _run(
        _Wanted(
            specs,
            name,
            run_id or _new_id(),
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
        journal = stacked.enter_context(Journal(wanted.journals, wanted.run_id, wanted.name))
        before = journal.place
        config, stack = _surroundings(wanted, journal, stacked, console)
        _resume(wanted, journal, config, console)
        executor = KubernetesExecutor(config)
        executor.start()
        stacked.callback(lambda: journal.let_go() if executor.end() else None)
        cluster_gone = before is not None and before.own_cluster
        if not cluster_gone:
            let_go_of_finished(executor, journal)
        logs = None if wanted.logs is None else TaskLogs(wanted.logs, config)
        if logs is not None:
            stacked.callback(logs.close)
        task_run = TaskRun(
            wanted.specs,
            executor,
            journal.name,
            wanted.run_id,
            journal,
            policy=wanted.policy,
            logs=logs,
            cluster_gone=cluster_gone,
        )
        task_run.submit()
        code = drive(task_run, console, stack.check if stack else lambda: None)
        report = Report.of(task_run, stack.logs if stack else None)
        _print(report, wanted.json)
        if stack is not None:
            _say(console, _where_logs_are(report, stack))
    raise typer.Exit(code)


def _surroundings(
    wanted: _Wanted, journal: Journal, stacked: ExitStack, console: Console
) -> tuple[KubeConfig, Stack | None]:
    """Start what the run needs here, or see that it is there; the configuration for it."""
    # A run that goes on is the same executor: it owns what the process before published.
    named = hashlib.sha256(orjson.dumps([journal.name, wanted.run_id])).hexdigest()[:12]
    config = with_defaults(wanted.config, {"core.executor_id": f"run-{named}"})
    if not wanted.launchers:
        preflight.within(wanted.wait, lambda: preflight.require_redis(config))
        if not wanted.own_cluster:  # named on the command line: it should be there
            preflight.require_cluster(config)
        return config, None
    # Not the run's id: the user may have named it, and any text will do for that.
    folder = _STATE / _new_id()
    earlier = journal.place.deployment if journal.place is not None else ""
    stack = stacked.enter_context(
        Stack(
            config,
            folder,
            wanted.launchers,
            own_cluster=wanted.own_cluster,
            deployment=earlier,
        )
    )
    _say_how_to_look(console, stack.config)
    return stack.config, stack


def _resume(wanted: _Wanted, journal: Journal, config: KubeConfig, console: Console) -> None:
    """See that the run can go on with these tasks here, and take it over."""
    place = Place(
        config.core.deployment,
        config.kubernetes.cluster,
        config.kubernetes.namespace,
        wanted.starts_cluster,
    )
    notes = check(wanted.specs, journal.history, journal.place, place, wanted.run_id)
    if journal.warning:
        notes.append(journal.warning)
    if journal.history:
        done = sum(1 for past in journal.history.values() if past.state is not None)
        notes.append(f"going on with run {wanted.run_id!r}: {done} tasks have finished already")
    for line in notes:
        _say(console, line)
    journal.opened(place, len(wanted.specs))


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
