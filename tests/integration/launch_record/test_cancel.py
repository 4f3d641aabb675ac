"""cancel: a user ends a launch, whoever owns it, and its owner is told."""

from __future__ import annotations

import pytest

from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.launch_reply import Adopted
from tests.integration.launch_record.world import RECORD_TTL, World

BY = "cancelled by ann@laptop"


def told_once(world: World) -> PodEvent:
    """The owner's last event says so; the record is closed and grants nothing."""
    *before, last = world.told()
    assert (last.state, last.cause, last.message) == (PodState.FAILED, Cause.CANCELLED, BY)
    assert all(event.cause is not Cause.CANCELLED for event in before)
    record = world.record()
    assert (record["state"], record["reason"], record["final"]) == ("withdrawn", BY, "1")
    assert PodEvent.decode(record["event"]) == last
    assert 0 < world.redis.pttl(world.task_key) <= RECORD_TTL * 1000
    assert world.redis.zcard(world.keys.tasks) == 0
    assert world.grant(last.attempt.number).why == "withdrawn"
    assert world.publish(last.attempt.number).why == "withdrawn"
    assert world.entries() == []
    return last


def in_the_queue(world: World) -> None:
    world.published()


def in_hand(world: World) -> None:
    world.published()
    world.deliver()


def parked(world: World) -> None:
    world.park(entry=world.published().entry)


def granted(world: World) -> None:
    world.published()
    world.deliver()
    world.grant()


@pytest.mark.parametrize("stage", [in_the_queue, in_hand, parked, granted])
@pytest.mark.parametrize("alive", [True, False])
def test_before_its_pod(world: World, stage, alive: bool) -> None:
    stage(world)
    if not alive:
        world.kill("exec-1")
    before = world.now()
    reply = world.cancel()
    assert (reply.outcome, reply.attempt, reply.pod) == ("ok", 1, "")
    assert (reply.create_before > before) == (stage is granted)
    world.revive("exec-1")
    assert told_once(world).uid is None
    assert not world.redis.exists(world.keys.parked("default"))
    assert world.removals() == []


def test_a_pod_of_an_earlier_grant_goes(world: World) -> None:
    granted(world)
    reply = world.cancel()
    told_once(world)
    assert world.report(world.event(PodState.PENDING)) == "unwanted"
    (removal,) = world.removals()
    assert (removal.uid, removal.not_before) == ("uid-1", reply.create_before)
    told_once(world)


@pytest.mark.parametrize(
    ("state", "started"), [(PodState.PENDING, Started.UNKNOWN), (PodState.RUNNING, Started.YES)]
)
def test_its_pod_is_removed_and_says_nothing_more(
    world: World, state: PodState, started: Started
) -> None:
    granted(world)
    last = world.event(state)
    world.apply(last)
    reply = world.cancel()
    assert (reply.outcome, reply.pod, reply.version) == ("ok", last.pod, last.resource_version)
    event = told_once(world)
    assert (event.uid, event.pod, event.started) == (last.uid, last.pod, started)
    (removal,) = world.removals()
    assert (removal.uid, removal.removal, removal.reason) == ("uid-1", "delete", BY)
    # Its own end comes later, and changes nothing.
    told = world.told()
    assert world.apply(world.event(PodState.FAILED)) == "unwanted"
    assert world.apply(world.event(PodState.SUCCEEDED), gone=True) == "stale"
    assert world.told() == told
    assert len(world.removals()) == 1


@pytest.mark.parametrize(
    "end",
    [
        lambda w: w.event(PodState.SUCCEEDED),
        lambda w: w.event(PodState.FAILED, started=Started.YES),
        lambda w: w.no_pod(PodState.FAILED, started=Started.NEVER, cause=Cause.ADMISSION),
    ],
)
@pytest.mark.parametrize("closed", [True, False])
def test_what_has_ended_stays_so(world: World, end, closed: bool) -> None:
    granted(world)
    world.report(end(world))
    if closed:
        world.finish()
    before = world.dump()
    assert world.cancel().outcome == "final"
    assert world.dump() == before


def test_a_failure_that_would_be_repeated_is_not(world: World) -> None:
    """The owner may publish the next attempt at any moment; that one is cancelled."""
    granted(world)
    world.apply(world.event(PodState.FAILED, started=Started.NEVER, cause=Cause.EVICTED))
    assert world.cancel().outcome == "ok"
    event = told_once(world)
    assert (event.attempt.number, event.uid) == (2, None)
    assert [removal.uid for removal in world.removals()] == ["uid-1"]


def test_a_buried_one(world: World) -> None:
    world.bury(world.published().entry)
    assert world.cancel().outcome == "final"


def test_twice(world: World) -> None:
    granted(world)
    world.apply(world.event(PodState.RUNNING))
    world.cancel()
    before = world.dump()
    assert world.cancel().outcome == "withdrawn"
    assert world.dump() == before


@pytest.mark.parametrize("lost", [True, False])
def test_unknown(world: World, lost: bool) -> None:
    if lost:
        granted(world)
        world.redis.flushall()
    before = world.dump()
    assert world.cancel().outcome == "unknown"
    assert world.dump() == before


def test_whoever_adopts_it_finds_out(world: World) -> None:
    world.published()
    world.kill("exec-1")
    world.cancel()
    reply = world.adopt("exec-2")
    assert isinstance(reply, Adopted)
    assert reply.record.state == "withdrawn"
    assert reply.record.event is not None
    assert reply.record.event.cause is Cause.CANCELLED


def test_its_owner_closes_it(world: World) -> None:
    granted(world)
    world.apply(world.event(PodState.RUNNING))
    world.cancel()
    entries = [entry.decode() for entry, _ in world.redis.xrange(world.keys.results("exec-1"))]
    assert world.finish(entries=entries, removal=world.removal()) == "ok"
    assert world.told() == []
    assert world.record()["state"] == "withdrawn"


def test_what_a_launcher_does_after_it_comes_to_nothing(world: World) -> None:
    entry = world.published().entry
    world.deliver()
    world.cancel()
    assert world.park(entry=entry) is False
    assert world.drain() == []
    assert world.report(world.no_pod(PodState.FAILED, started=Started.NEVER)) == "stale"
    told_once(world)


def test_names_that_json_must_quote(world: World) -> None:
    """The event is put together in Lua, from whatever a task is called."""
    key = type(world.launch.key)('d"ä\\', "t/\n", "run é", 3, 7, "2026-01-01T00:00:00Z")
    world.launch = type(world.launch)("prod", key, 'l"1')
    world.published()
    world.cancel()
    event = told_once(world)
    assert event.launch == world.launch
    assert event.launch.key.logical_date == key.logical_date
