"""An Airflow installation for the tests: its processes, its settings, and kbroker's beside it.

SQLite, one process each of API server, scheduler, DAG processor and triggerer, kbroker's
launchers and watcher, an embedded Redis and the local cluster, all on loopback.
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from kbroker.local.redis_server import EmbeddedRedis
from tests.airflow.api import Api, Run
from tests.airflow.ledger import Ledger
from tests.airflow.pods import Pods
from tests.airflow.settings import (
    CREATE_WINDOW,
    DEPLOYMENT,
    HERE,
    NAMESPACE,
    inherited,
    of_airflow,
    of_pods,
)
from tests.integration.stack import ROOT, Process, Stack

DAGS = {path.stem for path in (HERE / "dags").glob("*.py")} - {"ledger_writer"}
LAUNCHERS = 2
POOLS = {"six": 6, "one": 1}

_ALL_THE_TIME = "Adopting or resetting orphaned tasks"


class Site(Stack):
    """Airflow with kbroker, as real processes.

    Args:
        folder: everything is written below it.
    """

    # After kbroker's in the list; "" for none.
    other_executor = ""

    scheduler: Process
    api_server: Process
    dag_processor: Process
    triggerer: Process
    watching: Process
    pods: Pods

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            core__deployment=DEPLOYMENT,
            kubernetes__namespace=NAMESPACE,
            kubernetes__create_window=CREATE_WINDOW,
            kubernetes__pod_template_file=str(folder / "pod_template.yaml"),
            kubernetes__merge="airflow",
            # A task process may take long to say a word on a busy machine.
            watcher__pending_timeout=120.0,
        )
        # Its data outlive it, and it comes back on the same port.
        self.redis_server = EmbeddedRedis(free_port(), folder=folder / "redis")
        self.template = folder / "pod_template.yaml"
        self.other_template = folder / "other_template.yaml"
        self.home = folder / "home"
        self.pod_home = folder / "pod-home"
        self.task_logs = folder / "task-logs"
        self.gates = folder / "gates"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.api = Api(self.url)
        self.ledger = Ledger(self.ledger_path)
        self.launchers: list[Process] = []
        self.secret = secrets.token_hex(32)

    def _begin(self) -> None:
        super()._begin()
        for made in (self.home, self.pod_home, self.task_logs, self.gates):
            made.mkdir()
        self._write_pod_templates()
        # Written beforehand: pods that started at once would each write it.
        (self.pod_home / "airflow.cfg").touch()
        (self.home / "airflow.cfg").touch()
        migrated = subprocess.run(
            self._airflow("db", "migrate"),
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert migrated.returncode == 0, migrated.stdout + migrated.stderr
        self.api_server = self._run("api-server", "--host", "127.0.0.1", "--port", str(self.port))
        self.dag_processor = self._run("dag-processor")
        self.triggerer = self._run("triggerer", "--skip-serve-logs")
        self.start_watcher()
        self.start_launchers()
        self.pods = Pods(self.cluster.admin, NAMESPACE)
        self.start_scheduler()
        self.until("the API server answers", self.api.answers, 120)
        self.until("every DAG is parsed", lambda: self.api.dags() >= DAGS, 120)
        assert not self.api.import_errors()
        for name, slots in POOLS.items():
            self.api.make_pool(name, slots)
        self.until_led()

    # Processes.

    def start_scheduler(self) -> Process:
        """One more scheduler; `scheduler` is the last one."""
        self.scheduler = self._run("scheduler", "--skip-serve-logs")
        return self.scheduler

    def start_launchers(self) -> None:
        """As many launchers as are missing."""
        while len(self.launchers) < LAUNCHERS:
            self.launchers.append(self.launcher())

    def start_watcher(self) -> None:
        """One more watcher; `watching` is the last one."""
        self.watching = self.watcher()

    def end(self, process: Process) -> None:
        """SIGKILL a process; any other one that ends fails the test."""
        process.kill()
        self.processes.remove(process)
        self.launchers = [launcher for launcher in self.launchers if launcher is not process]

    def _run(self, name: str, *arguments: str) -> Process:
        """Start one of Airflow's processes."""
        self._count += 1
        process = Process(
            self._airflow(name, *arguments),
            self.environment,
            self.folder / f"airflow-{name}-{self._count}.log",
        )
        self.processes.append(process)
        return process

    @staticmethod
    def _airflow(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "airflow", *arguments]

    # Settings.

    @property
    def environment(self) -> dict[str, str]:
        """The environment of Airflow's own processes."""
        ours = {
            "PYTHONPATH": str(ROOT),
            "OTHER_TEMPLATE": str(self.other_template),
            "OTHER_EXECUTOR": self.other_executor,
        }
        return {**inherited(), **ours, **of_airflow(self)}

    @property
    def database(self) -> str:
        """URL of Airflow's database."""
        # Writers wait for one another, as long as it takes on a busy machine.
        return f"sqlite:///{self.home}/airflow.db?timeout=60"

    def _write_pod_templates(self) -> None:
        template = yaml.safe_load((HERE / "pod_template.yaml").read_text())
        env = template["spec"]["containers"][0]["env"]
        env += [{"name": name, "value": value} for name, value in of_pods(self).items()]
        self.template.write_text(yaml.safe_dump(template))
        env.append({"name": "FORM", "value": "template"})
        self.other_template.write_text(yaml.safe_dump(template))

    def logs(self) -> str:
        """The pods, and the end of every process's output without what is said all the time."""
        tails = [f"--- pods\n{self.pods.summary()}"]
        for process in self.processes:
            lines = process.log.read_text(errors="replace").splitlines()
            said = [line[:1000] for line in lines if _ALL_THE_TIME not in line]
            tails += [f"--- {process.log.name}", *said[-25:]]
        return "\n".join(tails)

    # Waiting.

    def until(self, what: str, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until the condition is true; its value.

        Raises:
            AssertionError: it does not become true, or a process has ended; says what all
                processes said last.
        """
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            ended = [process.log.name for process in self.processes if not process.alive]
            assert not ended, f"{ended} ended by itself\n{self.logs()}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{self.logs()}"
            time.sleep(0.2)
        return value

    # Tasks that wait, and what became of them.

    def gated(self, name: str, *, dag: str = "gated") -> Run:
        """Trigger a run whose only task, "gated", waits at a gate of the run's name."""
        return self.api.trigger(dag, name, gate=name, second_gate=f"{name}-2")

    def has_started(self, *runs: Run, what: str = "start") -> bool:
        """Whether the task of each of these runs has."""
        return all(any(e.what == what for e in self.ledger.of(*run.key)) for run in runs)

    def published(self) -> int:
        """How many launches wait for a launcher."""
        queues = (self.keys.launch_queue("default", p) for p in self.config().broker.priorities)
        return sum(int(self.redis.xlen(queue)) for queue in queues)

    def assert_each_ran_once(self, *runs: Run) -> None:
        """The task of each of these runs started once, ended, succeeded and used one try."""
        for run in runs:
            assert run.state() == "success", (run.key, self.logs())
            assert self.ledger.starts(*run.key) == [("gated", -1, 1)], self.logs()
            assert [tried["try_number"] for tried in run.tries("gated")] == [1]

    def until_pods_are_gone(self, *runs: Run) -> None:
        """Wait until none of the pods of these runs is left."""
        names = {run.run for run in runs}
        self.until("every pod is gone", lambda: not any(map(self.pods.of, names)), 40)

    def executor_log(self, run: Run, task: str = "gated", try_number: int = 1) -> str:
        """What the executor's `get_task_log` says, asked as the API server does: not started."""
        asked = subprocess.run(
            [sys.executable, str(HERE / "task_log.py"), *run.key, task, str(try_number)],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr
        messages, logs = json.loads(asked.stdout.splitlines()[-1])
        return "\n".join([*messages, *logs])

    def open_gate(self, name: str) -> None:
        """Let the tasks that wait at this gate go on."""
        (self.gates / name).touch()


def free_port() -> int:
    """One that nobody listens on, and that no client gets: those have ports above 32767."""
    while True:
        port = random.randrange(20_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
