"""One process of a run: its surroundings, its journal, its executor, and what it came to."""

from __future__ import annotations

import hashlib
import secrets
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson
import typer
from rich.console import Console

from kbroker.cli import preflight
from kbroker.cli.drive import drive
from kbroker.cli.journal import Journal, Place
from kbroker.cli.leftovers import let_go_of_finished
from kbroker.cli.report import Report
from kbroker.cli.resumption import check
from kbroker.cli.stack import Stack, with_defaults
from kbroker.cli.task_file import TaskSpec
from kbroker.cli.task_logs import TaskLogs
from kbroker.cli.task_run import Policy, TaskRun
from kbroker.cli.text import plain_console
from kbroker.executor import KubernetesExecutor
from kbroker.kube_config import KubeConfig

_STATE = Path(".kbroker")
RUNS = _STATE / "runs"
_PIPE_WIDTH = 120  # a pipe has no width; nothing needs to be cut for one


@dataclass(frozen=True, slots=True)
class Wanted:
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
    journals: Path = RUNS
    logs: Path | None = None

    @property
    def starts_cluster(self) -> bool:
        """Whether the cluster ends with this process."""
        return self.launchers > 0 and self.own_cluster


def new_id() -> str:
    """A name for a run, in the order of time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def conduct(wanted: Wanted) -> None:
    """Work on a run until it is over, print what it came to, and exit.

    Raises:
        KbrokerError: something that the run needs is not there.
    """
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
    wanted: Wanted, journal: Journal, stacked: ExitStack, console: Console
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
    folder = _STATE / new_id()
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


def _resume(wanted: Wanted, journal: Journal, config: KubeConfig, console: Console) -> None:
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
