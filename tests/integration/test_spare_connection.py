"""The pool with a connection at hand: it lends what stands, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from kbroker.errors import BrokerUnavailableError
from kbroker.redis_client import connect, told


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url, 5.0)
    yield client
    client.close()


def lend(client: redis.Redis):
    connection = client.connection_pool.get_connection()
    client.connection_pool.release(connection)
    return connection


def test_the_same_connection_is_lent_again(client: redis.Redis) -> None:
    first = lend(client)
    client.set("key", "value")
    assert told(client, [("GET", "key"), ("GET", "other")]) == [b"value", None]
    assert lend(client) is first


def test_who_asks_at_the_same_time_gets_another(client: redis.Redis) -> None:
    pool = client.connection_pool
    one, other = pool.get_connection(), pool.get_connection()
    assert one is not other
    pool.release(other)
    pool.release(one)
    assert {pool.get_connection(), pool.get_connection()} == {one, other}


def test_one_that_the_server_closed_is_mended(client: redis.Redis, redis_url: str) -> None:
    """As when Redis was restarted meanwhile: nobody hears of it."""
    ours = client.client_id()
    with redis.Redis.from_url(redis_url) as other:
        other.client_kill_filter(_id=ours)
    assert told(client, [("PING",)]) == [b"PONG"]
    assert client.client_id() != ours


def test_one_with_an_unread_reply_is_mended(client: redis.Redis) -> None:
    connection = lend(client)
    connection.send_command("ECHO", "of somebody else")
    while not connection.can_read(timeout=1):
        pass
    assert told(client, [("PING",)]) == [b"PONG"]


def test_one_of_another_process_is_not_touched(client: redis.Redis) -> None:
    """After a fork both processes have it, and would read each other's replies."""
    inherited = lend(client)
    inherited.pid -= 1
    assert told(client, [("PING",)]) == [b"PONG"]
    assert lend(client) is not inherited


def test_a_closed_client_connects_again(client: redis.Redis) -> None:
    lend(client)
    client.close()
    assert told(client, [("PING",)]) == [b"PONG"]


def test_what_follows_a_refusal_is_read_all_the_same(client: redis.Redis) -> None:
    ours = lend(client)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        told(client, [("SET", "key", "value"), ("LPUSH", "key", 1), ("SET", "other", "value")])
    assert told(client, [("GET", "other")]) == [b"value"]
    assert lend(client) is ours


def test_who_is_interrupted_leaves_no_reply_behind(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = lend(client)
    send = connection.send_packed_command

    def interrupted(*args, **options) -> None:
        send(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "send_packed_command", interrupted)
    with pytest.raises(KeyboardInterrupt):
        told(client, [("ECHO", "old")])
    monkeypatch.undo()
    assert told(client, [("ECHO", "new")]) == [b"new"]


def test_redis_away(unused_port: int) -> None:
    client = connect(f"redis://127.0.0.1:{unused_port}/0", 0.5)
    for _ in range(2):
        with pytest.raises(BrokerUnavailableError):
            told(client, [("PING",)])
