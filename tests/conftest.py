"""What every test may use: one embedded Redis for the session, empty for each test.

Also the order of the files, for workers that take whole ones.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import hypothesis
import pytest
import redis

from kbroker.local.redis_server import EmbeddedRedis

# The machine is shared: how long an example takes says nothing of what is tested.
hypothesis.settings.register_profile("kbroker", deadline=None)
hypothesis.settings.load_profile("kbroker")

# These take longest: a worker that began one of them last would keep all others waiting.
LONGEST = [
    "soak/test_soak.py",
    "bench/test_bench.py",
    "executor_model/test_executor_model.py",
    "integration/test_docs.py",
    "integration/test_cli.py",
    "integration/test_watcher.py",
    "integration/test_cli_resume.py",
    "integration/test_broker.py",
    "integration/test_launcher.py",
    "integration/test_launcher_logs.py",
    "conformance/test_flows.py",
    "integration/test_faults.py",
    "guarantees/test_redis_away.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""

    def place(item: pytest.Item) -> int:
        name = "/".join(item.path.parts[-2:])
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """An embedded Redis that lasts for the session."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """URL of an empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
