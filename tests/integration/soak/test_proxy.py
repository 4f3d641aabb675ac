"""The proxy of a soak: what passes, what is cut, and what had been carried out by then."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import redis
import yaml

from kbroker.errors import ClusterError
from kbroker.local.cluster_process import AdminClient, LocalCluster
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.soak.proxy import TcpProxy


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as running:
        yield running


@pytest.fixture
def proxy(server: EmbeddedRedis) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", server.port) as running:
        yield running


@pytest.fixture
def through(proxy: TcpProxy) -> Iterator[redis.Redis]:
    with redis.Redis(
        port=proxy.port, socket_timeout=0.3, socket_connect_timeout=0.3, retry=None
    ) as client:
        client.flushall()
        yield client


def direct(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis(port=server.port)


def test_everything_passes_by_itself(through: redis.Redis) -> None:
    big = b"x" * 5_000_000
    through.set("big", big)
    assert through.get("big") == big


def test_a_reply_is_cut_after_its_command_was_carried_out(
    proxy: TcpProxy, through: redis.Redis, server: EmbeddedRedis
) -> None:
    proxy.cut_replies(1)
    with pytest.raises(redis.ConnectionError):
        through.set("a", 1)
    assert direct(server).get("a") == b"1"
    assert through.set("a", 2)
    assert proxy.counts["replies_to_cut"] == 1


def test_a_request_is_cut_before_it_arrives(
    proxy: TcpProxy, through: redis.Redis, server: EmbeddedRedis
) -> None:
    proxy.cut_requests(1)
    with pytest.raises(redis.ConnectionError):
        through.set("a", 1)
    assert direct(server).get("a") is None
    assert through.set("a", 2)


def test_a_reply_that_is_held_arrives_later(proxy: TcpProxy, through: redis.Redis) -> None:
    through.ping()
    proxy.hold_replies(0.1, 1)
    began = time.monotonic()
    assert through.set("a", 1)
    assert time.monotonic() - began >= 0.1
    proxy.delay(0.1)
    began = time.monotonic()
    assert through.get("a") == b"1"
    assert time.monotonic() - began >= 0.1
    assert proxy.counts["delayed"] == 1


def test_an_answer_that_goes_on_for_long_breaks_in_the_middle(
    proxy: TcpProxy, through: redis.Redis, server: EmbeddedRedis
) -> None:
    news = through.pubsub()
    news.subscribe("news")
    assert news.get_message(timeout=5.0) is not None
    direct(server).publish("news", "whole")
    heard = news.get_message(timeout=5.0)
    assert heard is not None
    assert heard["data"] == b"whole"
    proxy.break_answers(1)
    direct(server).publish("news", "broken")
    with pytest.raises(redis.ConnectionError):
        news.get_message(timeout=5.0)
    assert proxy.counts["answers_to_break"] == 1
    assert through.set("a", 1)


def test_a_black_hole_swallows_and_ends_with_a_cut(
    proxy: TcpProxy, through: redis.Redis, server: EmbeddedRedis
) -> None:
    through.ping()
    proxy.black_hole()
    for _ in range(2):  # over an open connection, and over a new one
        with pytest.raises(redis.TimeoutError):
            through.set("a", 1)
    proxy.behave()
    assert direct(server).get("a") is None
    assert through.set("a", 2)


def test_refused_and_cut(proxy: TcpProxy, through: redis.Redis) -> None:
    through.ping()
    assert proxy.cut() == 1
    assert through.ping()
    proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        through.ping()
    proxy.behave()
    assert through.ping()


def test_garbage_instead_of_an_answer(proxy: TcpProxy, through: redis.Redis) -> None:
    through.connection_pool.disconnect()
    proxy.garble(1)
    with pytest.raises(redis.RedisError):
        through.ping()
    through.connection_pool.disconnect()
    assert through.ping()


def test_it_leaves_no_thread(server: EmbeddedRedis) -> None:
    before = threading.active_count()
    with TcpProxy("127.0.0.1", server.port):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_requests_are_told_from_a_tls_handshake(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        content = yaml.safe_load(cluster.kubeconfig.read_text())
        server = content["clusters"][0]["cluster"]
        port = int(server["server"].rpartition(":")[2])
        with TcpProxy("127.0.0.1", port) as proxy:
            server["server"] = f"https://127.0.0.1:{proxy.port}"
            path = tmp_path / "through"
            path.write_bytes(orjson.dumps(content))
            admin = AdminClient(path)
            assert admin.get("/api/v1/namespaces/default")
            proxy.cut_requests(1)
            with pytest.raises(OSError):  # noqa: PT011 - whichever way the connection dies
                admin.post("/api/v1/namespaces", {"metadata": {"name": "never"}})
            assert proxy.counts["requests_to_cut"] == 1
            with pytest.raises(ClusterError, match="404"):
                cluster.admin.get("/api/v1/namespaces/never")
            proxy.garble(1)
            with pytest.raises(OSError):  # noqa: PT011
                admin.get("/api/v1/namespaces/default")
            assert admin.get("/api/v1/namespaces/default")
