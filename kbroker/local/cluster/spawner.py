"""The process that starts the containers' processes, so that the API server never forks.

It is small, so that starting costs little, and lives in a session of its own, so that it
survives whatever kills the server: when the connection to the server closes, however that
came, it kills every process group that it started and ends.

The connection carries lines of JSON. Requests:
`{"id", "argv", "env", "folders", "log"}` starts a process in the first of the folders that is
there, `{"id", "signal"}` signals its group. With `"mounts"` and `"scratch"` it starts in a mount
namespace of its own (`mounts.py`).
Answers: `{"id", "pid"}` or `{"id", "error"}`, and when the process has ended `{"id", "exit"}`.
The first line of all is `{"way"}`: how directories can be mounted, "" if they cannot.

Output goes to the log file as it comes. Beside it, `<log>.times` holds one pair of
little-endian 64-bit numbers for each piece: its offset, and when it was read (ns since the epoch).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kbroker.local.cluster import mounts

TIME_RECORD = struct.Struct("<qq")

_PIECE = 65536
_LEFT_OVER = 1 << 20  # no pipe holds more
_FILES_MAX = 65536
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class Run:
    """One process and where its output goes.

    Args:
        name: the server's name for it.
        log: path of the log file.
    """

    def __init__(self, name: int, log: str) -> None:
        self.name = name
        self.pid = 0
        self.output, self.input = os.pipe()
        os.set_blocking(self.output, False)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._times = os.open(log + ".times", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._written = os.fstat(self._log).st_size

    def copy(self) -> int:
        """Copy one piece of output to the log; its size, 0 at the end.

        Raises:
            BlockingIOError: there is none at the moment.
        """
        piece = os.read(self.output, _PIECE)
        size = len(piece)
        if not size:
            return 0
        os.write(self._times, TIME_RECORD.pack(self._written, time.time_ns()))
        self._written += size
        while piece:
            piece = piece[os.write(self._log, piece) :]
        return size

    def close(self) -> None:
        """Copy what is left, and let go of the files."""
        end = self._written + _LEFT_OVER
        with contextlib.suppress(BlockingIOError):
            while self._written < end and self.copy():
                pass
        for descriptor in (self.output, self._log, self._times):
            os.close(descriptor)


class Spawner:
    """Starts, signals and reaps, until the connection closes.

    Args:
        connection: to the server.
        way: how directories can be mounted, "" if they cannot.
    """

    def __init__(self, connection: socket.socket, way: str) -> None:
        self._connection = connection
        self._way = way
        self._unread = b""
        self._open = True
        self._runs: dict[int, Run] = {}
        self._by_name: dict[int, Run] = {}
        # First processes that have ended, while something of their sessions may be left.
        self._ended: set[int] = set()
        self._selector = selectors.DefaultSelector()
        woken, wake = os.pipe()
        for descriptor in (woken, wake):
            os.set_blocking(descriptor, False)
        self._woken = woken
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        # A handler of Python's, and not SIG_IGN, which the containers would inherit.
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._selector.register(connection, selectors.EVENT_READ, self._read)
        self._selector.register(woken, selectors.EVENT_READ, self._reap)

    def serve(self) -> None:
        """Work until the connection closes; then kill everything."""
        self._answer({"way": self._way})
        while self._open:
            for key, _ in self._selector.select():
                if key.fd in self._selector.get_map():  # reaping may have removed it
                    key.data()
        for run in self._runs.values():
            _kill_group(run.pid)
        _kill_descendants()

    def _read(self) -> None:
        try:
            data = self._connection.recv(_PIECE * 4)
        except ConnectionError:
            data = b""
        if not data:
            self._open = False
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "signal" in request:
                run = self._by_name.get(request["id"])
                if run is not None:
                    _kill_group(run.pid, request["signal"])
            else:
                self._start(request)

    def _start(self, request: dict[str, Any]) -> None:
        run = None
        try:
            run = Run(request["id"], request["log"])
            run.pid = self._begun(request, run.input)
        except (OSError, ValueError) as error:
            if run is not None:
                os.close(run.input)
                run.close()
            said = error.strerror if isinstance(error, OSError) else str(error)
            self._answer({"id": request["id"], "error": said or str(error)})
            return
        os.close(run.input)
        self._ended.discard(run.pid)
        self._runs[run.pid] = self._by_name[run.name] = run
        self._selector.register(run.output, selectors.EVENT_READ, lambda: self._copy(run))
        self._answer({"id": run.name, "pid": run.pid})

    def _begun(self, request: dict[str, Any], output: int) -> int:
        """Start what a request asks for; its process id."""
        argv, env, folders = request["argv"], request["env"], request["folders"]
        if request.get("mounts"):
            wanted = [mounts.Mount(*mount) for mount in request["mounts"]]
            scratch = request["scratch"]
            return mounts.start(argv, env, folders, output, self._way, wanted, scratch)
        # Popen forks without copying this process's memory.
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=next(folder for folder in folders if os.path.isdir(folder)),
            env=env,
            start_new_session=True,
        )
        process.returncode = 0  # it is reaped by _reap
        return process.pid

    def _copy(self, run: Run) -> None:
        with contextlib.suppress(BlockingIOError):
            if not run.copy():
                # Nobody has the other end any more; the process itself may run on.
                self._selector.unregister(run.output)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            run = self._runs.pop(pid, None)
            if run is None:
                self._kill_left_behind()  # an orphan of some container: it may leave others
                continue
            # What it left behind ends with it, as everything in a container does: its group, and
            # what left that but not the session.
            _kill_group(pid)
            self._ended.add(pid)
            self._kill_left_behind()
            del self._by_name[run.name]
            if run.output in self._selector.get_map():
                self._selector.unregister(run.output)
            run.close()
            self._answer({"id": run.name, "exit": os.waitstatus_to_exitcode(status)})

    def _kill_left_behind(self) -> None:
        """Kill orphans in the sessions of containers that have ended (Linux only)."""
        orphans = {pid: _session(pid) for pid in _children() if pid not in self._runs}
        self._ended &= set(orphans.values())
        for pid, session in orphans.items():
            if session in self._ended:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _answer(self, content: dict[str, Any]) -> None:
        try:
            self._connection.sendall(json.dumps(content).encode() + b"\n")
        except ConnectionError:
            self._open = False


def _kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def allow_many_files() -> None:
    """Raise this process's limit of open files: three for each container, one for each client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_MAX if hard == resource.RLIM_INFINITY else min(_FILES_MAX, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _adopt_orphans() -> None:
    """Become the parent of processes whose own parent ends (Linux only)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _children() -> list[int]:
    """The processes whose parent this one is; none where the kernel does not list them."""
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return []
    return [int(pid) for pid in listed.split()]


def _session(pid: int) -> int:
    """The session of a process; 0 if it is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _kill_descendants() -> None:
    """Kill what left its process group, generation by generation (Linux only)."""
    deadline = time.monotonic() + 2
    while (children := _children()) and time.monotonic() < deadline:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def main() -> None:
    """Serve a connection; arguments: its file descriptor, and a folder to try mounting on.

    Without the folder, nothing is ever mounted.
    """
    _adopt_orphans()
    allow_many_files()
    way = mounts.way_to_mount(sys.argv[2]) if len(sys.argv) > 2 else ""
    Spawner(socket.socket(fileno=int(sys.argv[1])), way).serve()


if __name__ == "__main__":
    main()
