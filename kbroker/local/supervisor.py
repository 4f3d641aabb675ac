"""The processes behind `kbroker local up`: an embedded Redis and a local cluster.

`python -m kbroker.local.supervisor --dir DIR` runs both until it is told to stop,
and writes where they are into DIR/state.json.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kbroker.errors import KbrokerError, UsageError
from kbroker.local.cluster_process import LocalCluster
from kbroker.local.redis_server import EmbeddedRedis

_READY_WITHIN = 30.0
_STOP_WITHIN = 20.0


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
    """The supervisor that runs with this folder; None when there is none.

    A process id that belongs to another program by now does not count.
    """
    try:
        fields: dict[str, Any] = orjson.loads(state_file(folder).read_bytes())
        state = LocalState(**fields)
    except (OSError, ValueError, TypeError):
        return None
    command = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(state.pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    ours = "kbroker.local.supervisor" in command and str(folder.resolve()) in command
    return state if ours else None


def start(folder: Path) -> LocalState:
    """Start a supervisor in the background, and wait until everything is up.

    Raises:
        UsageError: one runs with this folder already.
        KbrokerError: it does not start; says what it said last.
    """
    folder = folder.resolve()
    if read_state(folder) is not None:
        raise UsageError(f"already up in {folder}; kbroker local status shows it")
    folder.mkdir(parents=True, exist_ok=True)
    state_file(folder).unlink(missing_ok=True)
    log = folder / "local.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kbroker.local.supervisor", "--dir", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        state = read_state(folder)
        if state is not None:
            return state
        time.sleep(0.05)
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
    while read_state(folder) is not None:
        if time.monotonic() > deadline:
            os.kill(state.pid, signal.SIGKILL)  # its children end with it
            break
        time.sleep(0.05)
    state_file(folder).unlink(missing_ok=True)
    return True


def main() -> int:
    """Run both until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m kbroker.local.supervisor")
    parser.add_argument("--dir", type=Path, required=True)
    folder = parser.parse_args().dir.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with EmbeddedRedis() as redis, LocalCluster(folder / "cluster") as cluster:
            state = {
                "pid": os.getpid(),
                "redis_url": redis.url,
                "kubeconfig": str(cluster.kubeconfig),
            }
            fresh = state_file(folder).with_suffix(".new")
            fresh.write_bytes(orjson.dumps(state))
            fresh.replace(state_file(folder))
            while True:
                signal.pause()
    except KbrokerError as error:
        print(f"kbroker: error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    finally:
        state_file(folder).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
