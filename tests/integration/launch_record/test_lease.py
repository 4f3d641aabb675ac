"""lease: only its token may renew or release it."""

from __future__ import annotations

import time

import pytest

from kbroker.lease import AsyncLease, Lease, LeaseState
from kbroker.redis_client import connect, connect_async

KEY = "{kbroker}:lease:default:default"


@pytest.fixture
def pair(redis_url: str):
    """Two processes that want one lease."""
    client = connect(redis_url, 5.0)
    yield Lease(client, KEY, 10.0), Lease(client, KEY, 10.0), client
    client.close()


def test_one_of_two_acquires_it(pair) -> None:
    first, second, client = pair
    assert first.acquire()
    assert not second.acquire()
    assert client.get(KEY).decode() == first.token
    assert 9_000 < client.pttl(KEY) <= 10_000
    assert first.acquire()  # it holds it already


def test_renewing_extends_it(pair) -> None:
    first, _, client = pair
    first.acquire()
    client.pexpire(KEY, 500)
    assert first.renew() is LeaseState.HELD
    assert client.pttl(KEY) > 9_000


def test_renewing_says_what_happened(pair) -> None:
    first, second, client = pair
    assert first.renew() is LeaseState.MISSING
    assert not client.exists(KEY)
    second.acquire()
    assert first.renew() is LeaseState.TAKEN
    assert client.get(KEY).decode() == second.token


def test_it_expires(redis_url: str) -> None:
    client = connect(redis_url, 5.0)
    first, second = Lease(client, KEY, 0.05), Lease(client, KEY, 10.0)
    assert first.acquire()
    deadline = time.monotonic() + 5
    while not second.acquire():
        assert time.monotonic() < deadline
    assert first.renew() is LeaseState.TAKEN
    client.close()


def test_only_its_holder_releases_it(pair) -> None:
    first, second, client = pair
    first.acquire()
    second.release()
    assert first.renew() is LeaseState.HELD
    first.release()
    assert not client.exists(KEY)
    first.release()  # harmless
    assert second.acquire()


def test_every_holder_has_its_own_token(pair) -> None:
    first, second, _ = pair
    assert first.token != second.token
    assert len(first.token) == 32


async def test_on_an_event_loop(redis_url: str) -> None:
    client = connect_async(redis_url, 5.0)
    first, second = AsyncLease(client, KEY, 10.0), AsyncLease(client, KEY, 10.0)
    assert await first.acquire()
    assert not await second.acquire()
    assert await second.renew() is LeaseState.TAKEN
    assert await first.renew() is LeaseState.HELD
    await second.release()
    assert await first.renew() is LeaseState.HELD
    await first.release()
    assert await first.renew() is LeaseState.MISSING
    await client.aclose()
