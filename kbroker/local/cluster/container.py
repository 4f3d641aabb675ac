"""One container: a local process in a process group and a folder of its own."""

from __future__ import annotations

import signal
from pathlib import Path

from kbroker.local.cluster.environment import Find, NotStarted, environment, expanded
from kbroker.local.cluster.processes import Process, Processes
from kbroker.local.cluster.store import Object, timestamp

_EPOCH = "1970-01-01T00:00:00Z"


class Container:
    """One container of a pod, over all its restarts.

    Args:
        spec: the container's part of the pod's specification.
        folder: the pod's folder.
        processes: what starts them.
    """

    def __init__(self, spec: Object, folder: Path, processes: Processes) -> None:
        self.name: str = spec["name"]
        self.spec = spec
        self.restarts = 0
        self.state: Object = {"waiting": {"reason": "ContainerCreating"}}
        self._last_state: Object = {}
        self._log = folder / f"{self.name}.log"
        self._folder = folder / self.name
        self._processes = processes
        self._process: Process | None = None

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

    async def start(self, pod: Object, find: Find) -> None:
        """Start the process; the state says what became of it.

        Args:
            pod: the pod as it stands.
            find: looks up secrets and config maps.

        Raises:
            NotStarted: it cannot even be created.
        """
        words = [*(self.spec.get("command") or []), *(self.spec.get("args") or [])]
        if not words:
            raise NotStarted(
                "CreateContainerError", "no command specified, and images are not used here"
            )
        env = environment(self.spec, pod, self._folder, find)
        argv = [expanded(word, env) for word in words]
        self._folder.mkdir(parents=True, exist_ok=True)
        wanted = self.spec.get("workingDir")
        folder = wanted if wanted and Path(wanted).is_dir() else str(self._folder)
        try:
            self._process = await self._processes.start(argv, env, folder, self._log)
        except OSError as error:
            self.state = {
                "terminated": {
                    "exitCode": 128,
                    "reason": "StartError",
                    "message": f'unable to start container process: exec: "{argv[0]}": {error}',
                    "startedAt": _EPOCH,
                    "finishedAt": timestamp(),
                }
            }
            return
        self.state = {"running": {"startedAt": timestamp()}}

    async def wait(self) -> None:
        """Wait until the process has ended."""
        if self._process is None or not self.running:
            return
        code = await self._process.exit
        code = 128 - code if code < 0 else code
        self.state = {
            "terminated": {
                "exitCode": code,
                "reason": "Completed" if code == 0 else "Error",
                "startedAt": self.state["running"]["startedAt"],
                "finishedAt": timestamp(),
                "containerID": self._id,
            }
        }

    def restarting(self, message: str) -> None:
        """It has ended and will run again later; its log becomes the previous one."""
        self.restarts += 1
        self._last_state = self.state
        self.state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}

    def keep_log(self) -> None:
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

    def status(self) -> Object:
        """The container's status as a kubelet writes it."""
        status: Object = {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": "",
            "ready": self.running,
            "started": self.running,
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
