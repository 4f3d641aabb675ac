"""Local processes, started by the spawner; one process group each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

from kbroker.local.cluster.mounts import Mount

log = logging.getLogger(__name__)

_END_WITHIN = 5.0
_LINE_MAX = 1 << 20
_NO_MOUNTS = (
    "volumes are not mounted for containers on this machine (no mount namespaces): they get "
    "the volumes' own paths in command, args and env wherever a mountPath stands there"
)


class Process:
    """A process that was started.

    Attributes:
        pid: its id, also of its group.
        started: done once it runs; fails with OSError when it cannot be started.
        exit: its exit code, or minus the signal that ended it, once it has ended.
    """

    def __init__(self, processes: Processes, name: int, loop: asyncio.AbstractEventLoop) -> None:
        self.pid = 0
        self.started: asyncio.Future[None] = loop.create_future()
        self.exit: asyncio.Future[int] = loop.create_future()
        self._processes = processes
        self._name = name

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole group; without effect once the process has ended."""
        self._processes.send({"id": self._name, "signal": int(number)})

    def abandon(self) -> None:
        """The spawner is gone: kill the group without it, and call the process killed."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if not self.started.done():
            self.started.set_exception(OSError("the process that starts containers is gone"))
        _settle(self.exit, -signal.SIGKILL)


class Processes:
    """The connection to the spawner.

    Attributes:
        lost: set when the spawner is gone, and with it every process.
    """

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self._way: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._names = itertools.count(1)
        self._known: dict[int, Process] = {}
        self._spawner: subprocess.Popen[bytes] | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self, folder: Path | None) -> None:
        """Start the spawner.

        Args:
            folder: an existing one, to try on it whether directories can be mounted; None never
                to mount any.
        """
        ours, its = socket.socketpair()
        with its:
            command = [sys.executable, "-m", "kbroker.local.cluster.spawner", str(its.fileno())]
            self._spawner = subprocess.Popen(
                command if folder is None else [*command, str(folder)],
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                start_new_session=True,
            )
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=_LINE_MAX)
        self._reading = asyncio.create_task(self._read(reader))

    async def mounting(self) -> bool:
        """Whether processes can be started with mounts."""
        return bool(await asyncio.shield(self._way))

    async def start(
        self,
        argv: list[str],
        env: dict[str, str],
        folders: list[str],
        output: Path,
        mounts: list[Mount] | None = None,
        scratch: Path | None = None,
    ) -> Process:
        """Start a process in a group of its own.

        Args:
            argv: program, looked up in the PATH of `env`, and arguments.
            env: all of its environment.
            folders: it runs in the first of these that is there.
            output: file to which its output is appended.
            mounts: what it sees mounted, only where `mounting`.
            scratch: an existing folder on which to mount while that is made.

        Raises:
            OSError: it cannot be started; the message says why.
        """
        name = next(self._names)
        process = Process(self, name, asyncio.get_running_loop())
        self._known[name] = process
        request = {"id": name, "argv": argv, "env": env, "folders": folders, "log": str(output)}
        if mounts:
            request |= {"mounts": [list(mount) for mount in mounts], "scratch": str(scratch)}
        self.send(request)
        await process.started
        return process

    def send(self, request: dict[str, object]) -> None:
        """Send a request; nothing happens when the spawner is gone."""
        if not self.lost.is_set():
            self._writer.write(orjson.dumps(request) + b"\n")

    async def close(self) -> None:
        """End the spawner, and with it every process."""
        if self._reading is None or self._spawner is None:
            return
        self._reading.cancel()
        self._writer.close()
        try:
            await asyncio.to_thread(self._spawner.wait, _END_WITHIN)
        except subprocess.TimeoutExpired:
            self._spawner.kill()
            self._spawner.wait()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            async for line in reader:
                self._take(orjson.loads(line))
        except ConnectionError:
            pass
        self.lost.set()
        _settle(self._way, "")
        for process in self._known.values():
            process.abandon()

    def _take(self, answer: dict[str, Any]) -> None:
        if "way" in answer:
            if not answer["way"]:
                log.warning(_NO_MOUNTS)
            _settle(self._way, answer["way"])
            return
        process = self._known[answer["id"]]
        if "pid" in answer:
            process.pid = answer["pid"]
            _settle(process.started, None)
            return
        del self._known[answer["id"]]
        if "error" in answer:
            if not process.started.done():
                process.started.set_exception(OSError(answer["error"]))
        else:
            _settle(process.exit, answer["exit"])


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():  # its reader may have been cancelled
        future.set_result(value)
