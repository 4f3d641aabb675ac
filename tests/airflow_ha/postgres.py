"""A PostgreSQL server for the tests, from whatever package is installed."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psycopg2

from tests.airflow.site import free_port

_WITHIN = 30.0


class Postgres:
    """Listens on loopback alone, with a password, and goes with everything in it."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="kbroker-postgres-")
        self._folder = Path(self._temporary.name)
        self._log = self._folder / "log"
        self._port = free_port()
        self._password = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the database "airflow"."""
        return f"postgresql+psycopg2://airflow:{self._password}@127.0.0.1:{self._port}/airflow"

    def __enter__(self) -> Postgres:
        word, data = self._folder / "password", str(self._folder / "data")
        word.write_text(self._password)
        if os.geteuid() == 0:  # it does not run as root
            for made in (self._folder, word):
                shutil.chown(made, "postgres", "postgres")
        initial = ("-D", data, "-U", "airflow", "-A", "scram-sha-256", f"--pwfile={word}", "-N")
        subprocess.run(_command("initdb", *initial), check=True, capture_output=True)
        word.unlink()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
        }
        said = [f"--{name}={value}" for name, value in settings.items()]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                _command("postgres", "-D", data, *said), stdout=log, stderr=log
            )
        deadline = time.monotonic() + _WITHIN
        while not self._made():
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_WITHIN)
        self._temporary.cleanup()

    def _made(self) -> bool:
        """Whether it answers, and has the database."""
        try:
            connection = psycopg2.connect(
                host="127.0.0.1",
                port=self._port,
                user="airflow",
                password=self._password,
                dbname="postgres",
            )
        except psycopg2.OperationalError:
            return False
        try:
            connection.autocommit = True
            connection.cursor().execute("CREATE DATABASE airflow")
        finally:
            connection.close()
        return True


def _command(name: str, *arguments: str) -> list[str]:
    """A program of the server's package; not as root."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    assert found, f"no {name} here: install a PostgreSQL server, such as Debian's postgresql"
    # setpriv becomes the program, so that a signal to the one is a signal to the other.
    other = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    return [*(other if os.geteuid() == 0 else ()), found, *arguments]
