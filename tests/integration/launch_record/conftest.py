"""A world around one launch record."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kbroker.redis_client import connect
from tests.integration.launch_record.world import World


@pytest.fixture
def world(redis_url: str) -> Iterator[World]:
    """Nothing is published yet; two executors live and a watcher leads."""
    client = connect(redis_url, 5.0)
    yield World(client)
    client.close()
