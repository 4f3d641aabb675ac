"""A child process that can be killed, paused and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from kbroker.kube_config import KubeConfig
from kbroker.local import worker_process
from kbroker.local.child import die_with_parent

_STOP_WITHIN = 10.0
_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


class SoakProcess:
    """A Python module in a process group of its own, with its output in a file.

    Args:
        name: of the process and its log.
        module: the module and its arguments.
        config: what it is configured with.
        log: where its output goes.

    Attributes:
        config: what the next start is configured with.
        prefix: words in front of the module at the next start: a module that runs it.
        wanted: whether `keep_up` starts it again when it has ended.
        started_at: when it was started, each time, by the monotonic clock.
    """

    def __init__(self, name: str, module: Sequence[str], config: KubeConfig, log: Path) -> None:
        self.name = name
        self.config = config
        self.prefix: tuple[str, ...] = ()
        self.wanted = False
        self.started_at: list[float] = []
        self._module = tuple(module)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    def start(self) -> None:
        """Start it; it is to stay up from now on."""
        self.wanted, self._paused = True, False
        self.started_at.append(time.monotonic())
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                worker_process.command((*self.prefix, *self._module)),
                env=worker_process.environment(self.config),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - only calls prctl
            )

    @property
    def alive(self) -> bool:
        """Whether it runs, or is paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id, or that of its last run; 0 before the first."""
        return 0 if self._process is None else self._process.pid

    def keep_up(self) -> None:
        """Start it again if it has ended although it is wanted."""
        if self.wanted and not self.alive:
            self._signal(signal.SIGKILL)  # what is left of its group
            self.start()

    def kill(self, *, again: bool = True) -> None:
        """SIGKILL it with its children.

        Args:
            again: whether `keep_up` is to start it again.
        """
        self.wanted = again
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP it with its children."""
        self._paused = True
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        if self._paused:
            self._paused = False
            self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        self.wanted = False
        self.go_on()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_WITHIN)
        self.kill(again=False)

    def wait(self, seconds: float) -> bool:
        """Whether it ends by itself within this time."""
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.alive

    def resident_kb(self) -> int:
        """Resident memory of it and its children; 0 where /proc does not tell."""
        if not self.alive:
            return 0
        total = 0
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(stat[2]) == self.pid:  # the process group
                    total += int((entry / "statm").read_text().split()[1]) * _PAGE_KB
        return total

    def said(self) -> str:
        """All that it has printed."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
