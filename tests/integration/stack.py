"""The whole of kbroker as real processes, and a ledger that the tasks themselves write."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from kbroker.executor import KubernetesExecutor
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.local import worker_process
from kbroker.local.cluster_process import LocalCluster
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.redis_client import connect
from kbroker.task import TaskKey

ROOT = Path(__file__).resolve().parents[2]

# Appends one line when it starts and one when it ends; appends this short are atomic.
LEDGER_TASK = 'echo "start $0 $HOSTNAME" >> "$1"; sleep "$2"; echo "end $0 $HOSTNAME" >> "$1"'


class Process:
    """A child in a process group of its own, with its output in a file."""

    def __init__(self, argv: list[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                argv, env=env, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self.signal(signal.SIGKILL)
        self._popen.wait(10)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if self._popen.poll() is None:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(10)
        self.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._popen.poll() is None


class Roles:
    """Embedded Redis, launchers and watchers for any cluster; `settings` are for all of them."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.redis_server = EmbeddedRedis()
        self._settings = settings
        self.processes: list[Process] = []
        self._count = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as started:
            started.callback(self.stop)
            self._begin()
            started.pop_all()
        return self

    def _begin(self) -> None:
        self.redis_server.start()
        self.redis = connect(self.redis_server.url, 5.0)
        self.keys = RedisKeys(self.config().broker.prefix)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything that was started; how a process stops is for its own tests to see."""
        self.kill()
        self.redis_server.stop()

    def kill(self) -> None:
        """SIGKILL every process: faster than to stop them, where they have nothing to hand over."""
        for process in self.processes:
            process.kill()

    def config(self, **more: Any) -> KubeConfig:
        """The configuration of every process of this stack."""
        values = {
            "broker.url": self.redis_server.url,
            "broker.redelivery_after": 2.0,
            "core.executor_lease": 2.0,
            "core.reconcile_interval": 0.5,
            "kubernetes.create_window": 4.0,
            "kubernetes.retry_budget": 3.0,
            "kubernetes.request_timeout": 2.0,
            "launcher.park_base": 0.3,
            "launcher.drain_interval": 0.2,
            "watcher.lease": 1.5,
            "watcher.silent_timeout": 15.0,
            "watcher.backoff_base": 0.1,
            "watcher.backoff_max": 1.0,
            "watcher.check_interval": 0.3,
            "watcher.fatal_waiting_grace": 0.5,
        }
        values.update({k.replace("__", "."): v for k, v in {**self._settings, **more}.items()})
        return KubeConfig.from_values(**values)

    def start(self, *argv: str, **settings: Any) -> Process:
        """Start a Python module as a process of this stack, with settings of its own."""
        self._count += 1
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("KBROKER")},
            **self.config(**settings).as_env(),
            "PYTHONPATH": str(ROOT),
        }
        name = argv[0].replace(".", "-")
        process = Process(
            [sys.executable, "-m", *argv], env, self.folder / f"{name}-{self._count}.log"
        )
        self.processes.append(process)
        return process

    def launcher(self, **settings: Any) -> Process:
        """One more launcher."""
        return self.start(*worker_process.launcher(processes=1, threads=2), **settings)

    def watcher(self, **settings: Any) -> Process:
        """One more watcher."""
        return self.start("workers.watcher", **settings)

    def leader(self) -> str:
        """Name of the leading watcher; "" without one."""
        watch = self.keys.watch("default", self.config().kubernetes.namespace)
        leader = self.redis.hget(watch, "leader") or b""
        return leader.decode() if isinstance(leader, bytes) else leader

    def until_led(self) -> None:
        """Wait until a watcher leads."""
        deadline = time.monotonic() + 20
        while not self.leader():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def executor(self, executor_id: str = "exec-1", **settings: Any) -> KubernetesExecutor:
        """A started executor in this process."""
        executor = KubernetesExecutor(self.config(core__executor_id=executor_id, **settings))
        executor.start()
        return executor

    def logs(self) -> str:
        """The end of every process's output, for a failing test's message."""
        tails = []
        for process in self.processes:
            text = process.log.read_text(errors="replace")
            tails.append(f"--- {process.log.name}\n{text[-3000:]}")
        return "\n".join(tails)


class Stack(Roles):
    """The same with a local cluster, and a ledger that the tasks write."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.ledger_path = folder / "ledger"
        self.ledger_path.touch()
        self.cluster = LocalCluster(folder / "cluster")

    def _begin(self) -> None:
        self.cluster.start()
        super()._begin()

    def stop(self) -> None:
        """End everything that was started."""
        super().stop()
        self.cluster.stop()

    def config(self, **more: Any) -> KubeConfig:
        """The configuration of every process of this stack."""
        return super().config(**{"kubernetes__kubeconfig": str(self.cluster.kubeconfig), **more})

    def command(self, task: str, seconds: float = 0.1) -> list[str]:
        """A command that writes to the ledger."""
        return ["sh", "-c", LEDGER_TASK, task, str(self.ledger_path), str(seconds)]

    def starts(self) -> collections.Counter[str]:
        """Task → how often its command really started."""
        return self._ledger("start")

    def ends(self) -> collections.Counter[str]:
        """Task → how often its command ran to its end."""
        return self._ledger("end")

    def _ledger(self, what: str) -> collections.Counter[str]:
        lines = [line.split() for line in self.ledger_path.read_text().splitlines()]
        return collections.Counter(line[1] for line in lines if line[0] == what)


class Drive:
    """Tasks of one executor, driven as a scheduler drives it."""

    def __init__(self, stack: Roles, executor: KubernetesExecutor, name: str = "run") -> None:
        self.stack = stack
        self.executor = executor
        self.name = name
        self.states: dict[str, list[str]] = collections.defaultdict(list)
        self.finals: dict[str, list[tuple[str, Any]]] = collections.defaultdict(list)
        self.tasks: list[str] = []

    def key(self, task: str) -> TaskKey:
        """The key of a task of this run."""
        return TaskKey("dag", task, self.name)

    def want(self, task: str, command: Sequence[str], **more: Any) -> None:
        """Want this command to run for this task."""
        self.tasks.append(task)
        self.executor.execute_async(
            self.key(task), command, launch_id=f"{self.name}-{task}", **more
        )

    def beat(self) -> None:
        """One turn of the scheduler's loop."""
        self.executor.heartbeat()
        for key, (state, info) in self.executor.get_event_buffer().items():
            self.states[key.task_id].append(state)
            if state in ("success", "failed"):
                self.finals[key.task_id].append((state, info))

    def until(self, what: str, condition: Callable[[], Any], seconds: float = 40.0) -> Any:
        """Beat until the condition is true; its value."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.beat()
            value = condition()
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {what}\n{self.situation()}")

    def situation(self) -> str:
        """What is known, for a failing test's message."""
        waiting = {k.task_id: self.executor.waiting(k) for k in self.executor.running}
        return f"finals {dict(self.finals)}\nwaiting {waiting}\n{self.stack.logs()}"

    def finish(self, seconds: float = 40.0) -> None:
        """Beat until every task is final."""
        self.until("every task is final", lambda: len(self.finals) == len(self.tasks), seconds)
        self.beat()


class Run(Drive):
    """Tasks that write to the stack's ledger."""

    stack: Stack

    def submit(self, *tasks: str, seconds: float = 0.1) -> None:
        """Want these tasks to run."""
        for task in tasks:
            self.want(task, self.stack.command(task, seconds))

    def situation(self) -> str:
        """What is known, for a failing test's message."""
        return f"starts {dict(self.stack.starts())}\n{super().situation()}"

    def assert_each_ran_once(self) -> None:
        """Nothing lost, nothing run twice: ledger and final states agree."""
        assert self.stack.starts() == collections.Counter(self.tasks)
        assert self.stack.ends() == collections.Counter(self.tasks)
        outcomes = {task: [state for state, _ in finals] for task, finals in self.finals.items()}
        assert outcomes == {task: ["success"] for task in self.tasks}, dict(self.finals)
        assert self.executor.running == set()


@contextlib.contextmanager
def running(
    folder: Path, *, launchers: int = 2, watchers: int = 1, **settings: Any
) -> Iterator[Stack]:
    """A stack with launchers and watchers that are up."""
    with Stack(folder, **settings) as stack:
        for _ in range(watchers):
            stack.watcher()
        for _ in range(launchers):
            stack.launcher()
        stack.until_led()
        yield stack
