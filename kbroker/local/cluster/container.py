"""One container: a local process in a process group and a folder of its own."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path

from kbroker.local.cluster.environment import Find, NotStarted, environment, expanded
from kbroker.local.cluster.logs import last_lines
from kbroker.local.cluster.mounts import Mount
from kbroker.local.cluster.processes import Process, Processes
from kbroker.local.cluster.store import Object, timestamp
from kbroker.local.cluster.volumes import Volumes, rewritten

_EPOCH = "1970-01-01T00:00:00Z"
_CALM = 600.0  # a run of so many seconds makes the next restart an immediate one again
# https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
_MESSAGE_LINES, _MESSAGE_BYTES = 80, 2048


@dataclass(frozen=True, slots=True)
class Start:
    """What a process is started with.

    Attributes:
        argv: program and arguments.
        env: all of its environment.
        folders: it runs in the first of these that is there.
        mounts: what it sees mounted; none where nothing can be mounted.
    """

    argv: list[str]
    env: dict[str, str]
    folders: list[str]
    mounts: list[Mount]


class Container:
    """One container of a pod, over all its restarts.

    Args:
        spec: the container's part of the pod's specification.
        folder: the pod's folder.
        processes: what starts them.
        volumes: the pod's volumes.

    Attributes:
        restarts: how often it was started again.
        crashes: ends in a row that each came soon after the start.
        pulls: how often its image could not be pulled.
        out_of_memory: whether it is being killed for using too much memory.
        started: whether its process runs, and its startup probe has succeeded.
        ready: whether it has started, and its readiness probe succeeds.
        started_once: whether it was `started` at least once.
    """

    def __init__(self, spec: Object, folder: Path, processes: Processes, volumes: Volumes) -> None:
        self.name: str = spec["name"]
        self.spec = spec
        self.restarts = 0
        self.crashes = 0
        self.pulls = 0
        self.out_of_memory = False
        self.started = self.ready = self.started_once = False
        self.state: Object = {"waiting": {"reason": "ContainerCreating"}}
        self._last_state: Object = {}
        self._log = folder / f"{self.name}.log"
        self._folder = folder / self.name
        self._processes = processes
        self._volumes = volumes
        self._process: Process | None = None
        self._since = 0.0

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return "running" in self.state

    @property
    def begun(self) -> bool:
        """Whether it ran at least once."""
        return self.running or "terminated" in self.state or bool(self._last_state)

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it has not."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    @property
    def pid(self) -> int:
        """The process id of its first process."""
        return 0 if self._process is None else self._process.pid

    async def start(self, pod: Object, find: Find) -> None:
        """Start the process; the state says what became of it.

        Args:
            pod: the pod as it stands.
            find: looks up secrets and config maps.

        Raises:
            NotStarted: it cannot even be created.
        """
        start = await self._prepared(pod, find)
        if self._last_state:
            self._keep_log()
            self.restarts += 1
        self.out_of_memory = False
        try:
            self._process = await self._processes.start(
                start.argv, start.env, start.folders, self._log, start.mounts, self._volumes.scratch
            )
        except OSError as error:
            said = error.strerror or str(error)
            self.state = {
                "terminated": {
                    "exitCode": 128,
                    "reason": "StartError",
                    "message": f'unable to start container process: exec: "{start.argv[0]}": '
                    f"{said}",
                    "startedAt": _EPOCH,
                    "finishedAt": timestamp(),
                }
            }
            return
        self._since = time.monotonic()
        self.state = {"running": {"startedAt": timestamp()}}
        if not self.spec.get("startupProbe"):
            self.has_started()

    def has_started(self) -> None:
        """It runs, and its startup probe, if it has one, has succeeded."""
        self.started = self.started_once = True
        self.ready = not self.spec.get("readinessProbe")

    async def _prepared(self, pod: Object, find: Find) -> Start:
        words = [*(self.spec.get("command") or []), *(self.spec.get("args") or [])]
        if not words:
            raise NotStarted(
                "CreateContainerError", "no command specified, and images are not used here"
            )
        env = environment(self.spec, pod, self._folder, find)
        argv = [expanded(word, env) for word in words]
        self._folder.mkdir(parents=True, exist_ok=True)
        folders = [*filter(None, [self.spec.get("workingDir")]), str(self._folder)]
        mounts = self._volumes.mounts(self.spec, env, self._folder)
        if not mounts or await self._processes.mounting():
            return Start(argv, env, folders, mounts)
        return Start(
            [rewritten(word, mounts) for word in argv],
            {name: rewritten(value, mounts) for name, value in env.items()},
            [rewritten(folder, mounts) for folder in folders],
            [],
        )

    async def wait(self) -> None:
        """Wait until the process has ended."""
        if self._process is None or not self.running:
            return
        code = await self._process.exit
        code = 128 - code if code < 0 else code
        reason = "Completed" if code == 0 else "Error"
        if self.out_of_memory:
            code, reason = 128 + signal.SIGKILL, "OOMKilled"
        ended = {
            "exitCode": code,
            "reason": reason,
            "startedAt": self.state["running"]["startedAt"],
            "finishedAt": timestamp(),
            "containerID": self._id,
        }
        if code != 0 and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            said = last_lines(self._log, _MESSAGE_LINES, _MESSAGE_BYTES)
            ended |= {"message": said} if said else {}
        self.state = {"terminated": ended}
        self.started = self.ready = False

    def ended_once_more(self) -> int:
        """Count an end; how many came before it, each soon after its start."""
        before = 0 if time.monotonic() - self._since > _CALM else self.crashes
        self.crashes = before + 1
        return before

    def back_off(self, message: str) -> None:
        """It has ended and will run again later; "" for at once."""
        self._last_state = self.state
        if message:
            self.state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}

    def _keep_log(self) -> None:
        """Keep the log of the run before as the previous one."""
        for suffix in ("", ".times"):
            path = self._log.with_name(self._log.name + suffix)
            if path.exists():
                path.replace(
                    previous_log(self._log).with_name(previous_log(self._log).name + suffix)
                )

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole process group."""
        if self._process is not None and self.running:
            self._process.signal(number)

    @property
    def _id(self) -> str:
        return f"process://{self._process.pid}" if self._process is not None else ""

    def status(self, *, ready: bool) -> Object:
        """The container's status as a kubelet writes it."""
        status: Object = {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.spec["image"] if self.begun else "",
            "ready": ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self._last_state,
        }
        if self._id:
            status["containerID"] = self._id
        return status


def previous_log(log: Path) -> Path:
    """Where the log of the run before is."""
    return log.with_name(f"{log.stem}.previous.log")
