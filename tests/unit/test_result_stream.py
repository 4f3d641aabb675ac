"""The reader of a result stream: what it reads, and what it deletes when."""

from __future__ import annotations

import fakeredis
import pytest

from kbroker.event import PodEvent, PodState
from kbroker.result_stream import ResultStream
from kbroker.task import Launch, TaskKey

KEY = "results"
EVENT = PodEvent(
    Launch("prod", TaskKey("dag", "task", "run"), "one").attempt(1),
    "default",
    "jobs",
    "pod-1",
    PodState.PENDING,
)


@pytest.fixture(params=[2, 3])
def redis(request: pytest.FixtureRequest) -> fakeredis.FakeStrictRedis:
    """A scheduler may bring a client of its own, of either protocol."""
    client = fakeredis.FakeStrictRedis(protocol=request.param)
    for number in range(1, 4):
        client.xadd(KEY, {"event": EVENT.encode()}, id=f"{number}-0")
    return client


def stands(client: fakeredis.FakeStrictRedis) -> list[bytes]:
    return [entry for entry, _ in client.xrange(KEY)]


def test_what_is_spent_goes_with_the_next_read(redis: fakeredis.FakeStrictRedis) -> None:
    stream = ResultStream(redis, KEY)
    assert [result.entry for result in stream.read(2)] == ["1-0", "2-0"]
    stream.discard(["1-0"])
    assert stands(redis) == [b"1-0", b"2-0", b"3-0"]
    assert [result.entry for result in stream.read(2)] == ["3-0"]
    assert stands(redis) == [b"2-0", b"3-0"]


def test_what_is_spent_goes_at_the_end(redis: fakeredis.FakeStrictRedis) -> None:
    stream = ResultStream(redis, KEY)
    stream.read(3)
    stream.discard(["2-0", "3-0"])
    stream.flush()
    assert stands(redis) == [b"1-0"]


def test_after_a_loss_nothing_is_known_to_be_spent(redis: fakeredis.FakeStrictRedis) -> None:
    """Ids begin anew where Redis and its clock do: one of before may name another entry now."""
    stream = ResultStream(redis, KEY)
    stream.read(3)
    stream.discard(["1-0", "2-0"])
    stream.rewind()
    assert [result.entry for result in stream.read(3)] == ["1-0", "2-0", "3-0"]
    assert len(stands(redis)) == 3
