"""The processes behind `kbroker local up`: an embedded Redis and a local cluster.

`python -m kbroker.local.supervisor --dir DIR` runs both until it is told to stop.
It says where they are in DIR/state.json, and holds a lock on DIR/lock for as long
as it lives: only while the lock is held is the process id in the state its own.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from kbroker.errors import KbrokerError, UsageError
from kbroker.local.cluster_process import LocalCluster
from kbroker.local.redis_server import EmbeddedRedis

_READY_WITHIN = 30.0
_STOP_WITHIN = 20.0
_LOOK_EVERY = 0.05


@dataclass(frozen=True, slots=True)
class LocalState:
    """A running supervisor.

    Attributes:
        pid: its process id.
        redis_url: the embedded Redis.
        kubeconfig: the local cluster's.
    """

    pid: int
    redis_url: str
    kubeconfig: str


def state_file(folder: Path) -> Path:
    """Where a supervisor says where things are."""
    return folder / "state.json"


def read_state(folder: Path) -> LocalState | None:
    """The supervisor that runs with this folder and is ready; None when there is none."""
    if not _is_locked(folder):
        return None
    try:
        fields: dict[str, Any] = orjson.loads(state_file(folder).read_bytes())
        return LocalState(**fields)
    except (OSError, ValueError, TypeError):
        return None


def start(folder: Path) -> LocalState:
    """Start a supervisor in the background, and wait until everything is up.

    Raises:
        UsageError: one runs with this folder already.
        KbrokerError: it does not start; says what it said last.
    """
    folder = folder.resolve()
    if _is_locked(folder):
        raise _already_up(folder)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "local.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kbroker.local.supervisor", "--dir", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        state = read_state(folder)
        if state is not None and state.pid == process.pid:
            return state
        time.sleep(_LOOK_EVERY)
    process.terminate()
    said = log.read_text(errors="replace").strip().splitlines()
    raise KbrokerError(said[-1].removeprefix("kbroker: error: ") if said else "it does not start")


def stop(folder: Path) -> bool:
    """Stop the supervisor of this folder and all that it started; False when none runs."""
    state = read_state(folder)
    if state is None:
        return False
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_WITHIN
    while _is_locked(folder):
        if time.monotonic() > deadline:
            os.kill(state.pid, signal.SIGKILL)  # its children end with it
            break
        time.sleep(_LOOK_EVERY)
    state_file(folder).unlink(missing_ok=True)
    return True


def serve(folder: Path, ready: Callable[[LocalState], None] = lambda _state: None) -> None:
    """Run both in this process' life time, until KeyboardInterrupt or SystemExit.

    Args:
        folder: state, kubeconfig and logs.
        ready: called once everything is up.

    Raises:
        UsageError: a supervisor runs with this folder already.
        KbrokerError: something does not start.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder), EmbeddedRedis() as redis, LocalCluster(folder / "cluster") as cluster:
        state = LocalState(os.getpid(), redis.url, str(cluster.kubeconfig))
        fresh = state_file(folder).with_suffix(".new")
        fresh.write_bytes(orjson.dumps(asdict(state)))
        fresh.replace(state_file(folder))
        try:
            ready(state)
            while True:
                signal.pause()
        finally:
            state_file(folder).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the state of an earlier supervisor is void then."""
    with (folder / "lock").open("a") as lock:
        if not _take(lock):
            raise _already_up(folder)
        state_file(folder).unlink(missing_ok=True)
        yield


def _is_locked(folder: Path) -> bool:
    try:
        with (folder / "lock").open("rb") as lock:
            return not _take(lock)
    except FileNotFoundError:
        return False


def _take(lock: IO[Any]) -> bool:
    """Take the lock until the file is closed; False when somebody holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _already_up(folder: Path) -> UsageError:
    return UsageError(f"already up in {folder}; kbroker local status shows it")


def main() -> int:
    """Run both until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m kbroker.local.supervisor")
    parser.add_argument("--dir", type=Path, required=True)
    folder = parser.parse_args().dir
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        serve(folder)
    except KbrokerError as error:
        print(f"kbroker: error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
