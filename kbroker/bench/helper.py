"""A helper process of the bench; see `commands`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import orjson

from kbroker.errors import KbrokerError
from kbroker.kube_config import KubeConfig
from kbroker.local import worker_process
from kbroker.local.child import die_with_parent

_ANSWER_WITHIN = 300.0
_STOP_WITHIN = 10.0


class BenchError(KbrokerError):
    """A run did not do what it was to measure."""


class Helper:
    """A Python module that obeys commands; `with` starts it, in a group of its own, and ends it.

    Args:
        name: of the process and its log.
        module: the module.
        config: what it is configured with.
        folder: where its log is.
    """

    def __init__(self, name: str, module: str, config: KubeConfig, folder: Path) -> None:
        self.name = name
        self._module = module
        self._config = config
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""

    @property
    def pid(self) -> int:
        """Its process id; 0 while it does not run."""
        return 0 if self._process is None else self._process.pid

    def __enter__(self) -> Helper:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as errors:
            self._process = subprocess.Popen(
                worker_process.command((self._module,)),
                env=worker_process.environment(self._config),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - only calls prctl
            )

    def ask(self, does: str, **what: Any) -> dict[str, Any]:
        """Have it do something, and wait for the answer.

        Raises:
            BenchError: it could not, or has ended.
        """
        self.send(does, **what)
        return self.receive()

    def send(self, does: str, **what: Any) -> None:
        """Have it do something; `receive` gives the answer.

        Raises:
            BenchError: it has ended.
        """
        if self._process is None or self._process.stdin is None:
            raise BenchError(f"{self.name} does not run")
        try:
            self._process.stdin.write(orjson.dumps({"do": does, **what}) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self) -> dict[str, Any]:
        """The next answer; raises likewise."""
        deadline = time.monotonic() + _ANSWER_WITHIN
        if self._process is None or self._process.stdout is None:
            raise BenchError(f"{self.name} does not run")
        pieces = [self._read]
        while b"\n" not in pieces[-1]:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise BenchError(f"{self.name} does not answer; see {self._log}")
            pieces.append(os.read(self._process.stdout.fileno(), 1 << 20))
            if not pieces[-1]:
                raise self._ended()
        line, _, self._read = b"".join(pieces).partition(b"\n")
        answer: dict[str, Any] = orjson.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.name}: {answer['error']}")
        return answer

    def stop(self) -> None:
        """End its input, and it if that does not help."""
        process, self._process = self._process, None
        if process is None or process.stdin is None or process.stdout is None:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()

    def _ended(self) -> BenchError:
        said = self._log.read_text(errors="replace").strip().splitlines()
        return BenchError(f"{self.name} has ended: {said[-1] if said else 'it said nothing'}")
