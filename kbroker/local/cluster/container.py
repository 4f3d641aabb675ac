"""One container: a local process in a process group and a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path
from typing import Any

from kbroker.local.child import die_with_parent
from kbroker.local.cluster.store import Object, timestamp

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_EPOCH = "1970-01-01T00:00:00Z"


class NotStarted(Exception):  # noqa: N818 - a state, not an error of ours
    """The container cannot be created.

    Args:
        reason: as a kubelet names it.
        message: in words.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Container:
    """One run of one container.

    Args:
        spec: the container's part of the pod's specification.
        pod: the pod.
        folder: the pod's folder.
    """

    def __init__(self, spec: Object, pod: Object, folder: Path) -> None:
        self.name: str = spec["name"]
        self.spec = spec
        self.restarts = 0
        self.log = folder / f"{self.name}.log"
        self._pod = pod
        self._folder = folder / self.name
        self._process: asyncio.subprocess.Process | None = None
        self.state: Object = {"waiting": {"reason": "ContainerCreating"}}
        self.last_state: Object = {}
        self.killed = False

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it has not."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    async def start(self) -> None:
        """Start the process; the state says what became of it.

        Raises:
            NotStarted: it cannot even be created.
        """
        words = [*(self.spec.get("command") or []), *(self.spec.get("args") or [])]
        if not words:
            raise NotStarted(
                "CreateContainerError", "no command specified, and images are not used here"
            )
        env = environment(self.spec, self._pod, self._folder)
        argv = [expanded(word, env) for word in words]
        self._folder.mkdir(parents=True, exist_ok=True)
        wanted = self.spec.get("workingDir")
        folder = wanted if wanted and Path(wanted).is_dir() else str(self._folder)
        try:
            with self.log.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=folder,
                    env=env,
                    start_new_session=True,
                    preexec_fn=die_with_parent(),
                )
        except OSError as error:
            self.state = {
                "terminated": {
                    "exitCode": 128,
                    "reason": "StartError",
                    "message": f"failed to start {argv[0]!r}: {error.strerror}",
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
        code = await self._process.wait()
        # What it left behind in its group ends with it, as everything in a container does.
        self._signal(signal.SIGKILL)
        code = 128 - code if code < 0 else code
        self.state = {
            "terminated": {
                "exitCode": code,
                "reason": "Completed" if code == 0 else "Error",
                "startedAt": self.state["running"]["startedAt"],
                "finishedAt": timestamp(),
                "containerID": self.id,
            }
        }

    async def end(self, grace: float) -> None:
        """SIGTERM, and after `grace` seconds SIGKILL, to the whole group; wait for the end."""
        self.killed = True
        if self._process is None or not self.running:
            return
        self._signal(signal.SIGTERM if grace > 0 else signal.SIGKILL)
        try:
            await asyncio.wait_for(asyncio.shield(self._process.wait()), max(grace, 0.001))
        except TimeoutError:
            self._signal(signal.SIGKILL)
        await self.wait()

    def kill(self) -> None:
        """SIGKILL to the whole group, without waiting."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    @property
    def id(self) -> str:
        """The container id; "" before it was created."""
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
            "state": dict(self.state),
            "lastState": dict(self.last_state),
        }
        if self.id:
            status["containerID"] = self.id
        return status


def environment(spec: Object, pod: Object, folder: Path) -> dict[str, str]:
    """The environment of a container's process.

    Raises:
        NotStarted: a variable's source is not there or not supported.
    """
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "HOSTNAME": pod["metadata"]["name"],
    }
    for variable in spec.get("env") or []:
        source = variable.get("valueFrom")
        if source:
            env[variable["name"]] = _field(source, pod)
        else:
            env[variable["name"]] = expanded(variable.get("value") or "", env)
    return env


def expanded(text: str, env: dict[str, str]) -> str:
    """`$(NAME)` replaced by the variable's value, `$$` by `$`; unknown names stay.

    https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    """

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return env.get(found[1], found[0])

    return _REFERENCE.sub(value, text) if "$" in text else text


def _field(source: Object, pod: Object) -> str:
    reference = source.get("fieldRef")
    if reference is None:
        kind = next(iter(source), "valueFrom")
        raise NotStarted(
            "CreateContainerConfigError", f"{kind} is not supported by the local cluster"
        )
    path = reference.get("fieldPath", "")
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if keyed:
        return str((pod["metadata"].get(keyed[1]) or {}).get(keyed[2], ""))
    part: Any = pod
    for step in path.split("."):
        part = part.get(step) if isinstance(part, dict) else None
    if part is None:
        raise NotStarted("CreateContainerConfigError", f"fieldPath {path!r} has no value")
    return str(part)
