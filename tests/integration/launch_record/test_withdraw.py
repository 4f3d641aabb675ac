"""withdraw: nothing more is created, what exists or appears goes."""

from __future__ import annotations

import pytest

from kbroker.event import PodState, Started
from kbroker.keys import LAUNCHERS_GROUP
from tests.integration.launch_record.world import RECORD_TTL, WINDOW, World


def closed(world: World) -> None:
    """The record is withdrawn, expires, and is not indexed."""
    record = world.record()
    assert (record["state"], record["reason"]) == ("withdrawn", "revoked")
    assert int(record["closed_at"]) <= world.now()
    assert 0 < world.redis.pttl(world.task_key) <= RECORD_TTL * 1000
    assert world.redis.zcard(world.keys.tasks) == 0
    assert world.grant().why == "withdrawn"


def test_in_the_queue(world: World) -> None:
    world.published()
    assert world.withdraw() == "ok"
    assert world.entries() == []
    closed(world)


def test_in_the_hands_of_a_launcher(world: World) -> None:
    world.published()
    world.deliver()
    assert world.withdraw() == "ok"
    assert world.entries() == []
    assert world.redis.xpending(world.queue, LAUNCHERS_GROUP)["pending"] == 0
    closed(world)


def test_parked(world: World) -> None:
    world.park(entry=world.published().entry)
    assert world.withdraw() == "ok"
    assert not world.redis.exists(world.keys.parked("default"))
    assert not world.redis.exists(world.keys.parked_messages("default"))
    closed(world)


def test_granted(world: World) -> None:
    """The pod may appear any moment: it is unwanted then, and its name is held."""
    world.published()
    granted = world.grant()
    assert world.withdraw() == "ok"
    closed(world)
    assert (world.removals(), world.parked_removals()) == ([], {})
    assert world.report(world.event(PodState.PENDING)) == "unwanted"
    (removal,) = world.removals()
    assert (removal.uid, removal.not_before) == ("uid-1", granted.create_before)


def test_launched(world: World) -> None:
    world.published()
    world.report(world.event(PodState.RUNNING))
    assert world.withdraw() == "ok"
    closed(world)
    (removal,) = world.removals()
    assert (removal.uid, removal.removal, removal.reason) == ("uid-1", "delete", "revoked")
    # Its further events ask for nothing more, and nobody is told.
    told = world.told()
    assert world.apply(world.event(PodState.RUNNING)) == "unwanted"
    assert world.apply(world.event(PodState.FAILED), gone=True) == "stale"
    assert len(world.removals()) == 1
    assert world.told() == told


def test_launched_within_the_window(world: World) -> None:
    world.published()
    granted = world.grant()
    world.report(world.event(PodState.RUNNING))
    world.withdraw()
    # A launcher stops it now, and deletes it when its name need not be held.
    (removal,) = world.removals()
    assert (removal.uid, removal.not_before) == ("uid-1", granted.create_before)


def test_missing_leaves_a_tombstone(world: World) -> None:
    before = world.now()
    assert world.withdraw() == "ok"
    closed(world)
    record = world.record()
    assert (record["owner"], record["attempt"], record["deployment"]) == ("exec-1", "1", "prod")
    # A grant of the lost record may still create: that pod goes after its window.
    assert int(record["create_before"]) >= before + WINDOW * 1000
    assert world.apply(world.event(PodState.RUNNING)) == "unwanted"
    (removal,) = world.removals()
    assert removal.not_before == int(record["create_before"])


def test_missing_with_a_later_attempt_leaves_a_tombstone_for_all_of_them(world: World) -> None:
    assert world.withdraw(number=2) == "ok"
    assert world.record()["attempt"] == "2"
    assert world.apply(world.event(PodState.RUNNING, 1)) == "unwanted"
    assert world.apply(world.event(PodState.RUNNING, 2)) == "unwanted"
    assert len(world.removals()) == 2


@pytest.mark.parametrize("lease", ["missing", "another's"])
@pytest.mark.parametrize("recorded", [True, False])
def test_nothing_is_written_without_the_lease(world: World, lease: str, recorded: bool) -> None:
    if recorded:
        world.published()
    if lease == "missing":
        world.kill("exec-1")
    before = world.dump()
    assert world.withdraw(as_token="" if lease == "missing" else "another's") == "lease"
    assert world.dump() == before


def test_refusals_write_nothing(world: World) -> None:
    world.published()
    before = world.dump()
    assert world.withdraw("exec-2") == "owner"
    assert world.dump() == before
    world.withdraw()
    before = world.dump()
    assert world.withdraw() == "withdrawn"
    assert world.dump() == before


def test_a_finished_launch_stays_finished(world: World) -> None:
    world.published()
    world.apply(world.event(PodState.SUCCEEDED))
    world.finish()
    before = world.dump()
    assert world.withdraw() == "final"
    assert world.dump() == before


def test_what_a_launcher_does_after_a_withdrawal_comes_to_nothing(world: World) -> None:
    """It took the message before, and tells of it afterwards."""
    entry = world.published().entry
    world.deliver()
    world.withdraw()
    assert world.park(entry=entry) is False
    assert world.drain() == []
    assert world.report(world.no_pod(PodState.FAILED, started=Started.NEVER)) == "stale"
    assert world.told() == []
    closed(world)
