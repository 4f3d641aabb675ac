"""The launch record on fakeredis: what users' own unit tests may run it against."""

from __future__ import annotations

import fakeredis
import pytest

from kbroker.event import PodState, Started
from kbroker.launch_reply import Adopted, Granted, Published, Refused
from tests.integration.launch_record.world import World


@pytest.fixture
def world() -> World:
    return World(fakeredis.FakeStrictRedis())


def test_from_publication_to_the_removed_pod(world: World) -> None:
    world.listed()
    published = world.publish()
    assert isinstance(published, Published)
    assert world.entries() == [published.entry]
    assert isinstance(world.publish(), Refused)

    granted = world.grant()
    assert isinstance(granted, Granted)
    assert granted.create_before > granted.now
    assert world.report(world.event(PodState.PENDING)) == "applied"
    assert world.grant().why == "launched"
    assert world.apply(world.event(PodState.RUNNING, started=Started.YES)) == "applied"
    assert world.apply(world.event(PodState.SUCCEEDED, exit_code=0)) == "applied"
    assert [event.state for event in world.told()] == ["pending", "running", "succeeded"]

    reply = world.adopt("exec-1")
    assert isinstance(reply, Adopted)
    assert reply.record.event == world.told()[-1]

    entries = [entry.decode() for entry, _ in world.redis.xrange(world.keys.results("exec-1"))]
    assert world.finish(entries=entries, removal=world.removal()) == "ok"
    assert world.told() == []
    assert set(world.parked_removals()) == {"delete:uid-1"}
    assert world.record()["state"] == "final"
    assert world.redis.pttl(world.task_key) > 0
    assert world.apply(world.event(PodState.SUCCEEDED), gone=True) == "final"


def test_a_withdrawn_launch(world: World) -> None:
    world.publish()
    assert world.withdraw() == "ok"
    assert world.entries() == []
    assert world.grant().why == "withdrawn"
    assert world.apply(world.event(PodState.RUNNING)) == "unwanted"
    assert len(world.removals()) == 1


def test_parking_and_burial(world: World) -> None:
    entry = world.published().entry
    world.deliver()
    assert world.park(entry=entry) is True
    ((item, _),) = world.drain()
    assert item.startswith("launch:")
    assert world.bury("") is True
    assert world.redis.xlen(world.keys.dead) == 1
    assert world.grant().why == "dead"
