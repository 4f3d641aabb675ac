"""adopt: own a launch whose owner is dead; restore a record that Redis lost."""

from __future__ import annotations

import pytest

from kbroker.event import PodEvent, PodState, Started
from kbroker.launch_reply import Adopted, Granted, Missing, Refused
from tests.integration.launch_record.world import LEADER_TOKEN, PLACE, WINDOW, World

TERMS = {"token": LEADER_TOKEN, "leader": "watcher-1"}


def adopted(world: World, *args, **kwargs) -> Adopted:
    reply = world.adopt(*args, **kwargs)
    assert isinstance(reply, Adopted), reply
    return reply


def lose_records(world: World) -> None:
    """Redis lost everything but the picture, which the watcher listed again."""
    world.redis.delete(world.task_key, world.keys.tasks, world.queue)
    world.redis.delete(world.keys.delete_queue("default"), world.keys.results("exec-1"))


@pytest.mark.parametrize("lease", ["missing", "another's"])
def test_nothing_is_written_without_the_lease(world: World, lease: str) -> None:
    world.published()
    world.kill("exec-1")
    if lease == "missing":
        world.kill("exec-2")
    before = world.dump()
    reply = world.adopt("exec-2", as_token="" if lease == "missing" else "of another process")
    assert reply == Refused("lease")
    assert world.dump() == before


def test_of_a_living_executor(world: World) -> None:
    world.published()
    before = world.dump()
    assert world.adopt("exec-2") == Refused("owned", detail="exec-1")
    assert world.dump() == before


def test_of_a_dead_executor(world: World) -> None:
    entry = world.published().entry
    world.kill("exec-1")
    reply = adopted(world, "exec-2")
    assert (reply.record.state, reply.record.owner) == ("wanted", "exec-2")
    assert (reply.record.attempt, reply.record.entry) == (1, entry)
    assert world.record()["owner"] == "exec-2"
    # The old owner comes back: it is not its own any more.
    world.revive("exec-1")
    assert world.withdraw("exec-1") == "owner"
    assert world.finish("exec-1") == "owner"
    assert world.publish(executor="exec-1") == Refused("owner", detail="exec-2")


def test_of_a_dead_executor_under_whose_id_another_process_lives(world: World) -> None:
    world.published()
    world.kill("exec-1")
    world.redis.set(world.keys.executor("exec-1"), "of its successor")
    # Who had it and lost it may not have it back: the successor may be about to claim it.
    before = world.dump()
    assert world.adopt("exec-2", claim=False) == Refused("owned", detail="exec-1")
    assert world.dump() == before
    assert adopted(world, "exec-2").record.owner == "exec-2"
    # From now on the successor's claim comes too late.
    assert world.adopt("exec-1", as_token="of its successor") == Refused("owned", detail="exec-2")


def test_the_successor_of_a_dead_executor_claims_its_launches(world: World) -> None:
    world.published()
    world.kill("exec-1")
    world.redis.set(world.keys.executor("exec-1"), "of its successor")
    reply = adopted(world, "exec-1", as_token="of its successor")
    assert reply.record.owner == "exec-1"
    assert world.adopt("exec-2") == Refused("owned", detail="exec-1")


def test_the_last_event_travels(world: World) -> None:
    world.published()
    event = world.event(PodState.SUCCEEDED, exit_code=0, started=Started.YES)
    world.apply(event)
    world.kill("exec-1")
    record = adopted(world).record
    assert (record.event, record.uid) == (event, "uid-1")
    assert record.event_at == int(world.record()["event_at"])


def test_ones_own_is_only_read(world: World) -> None:
    world.published()
    before = world.dump()
    assert adopted(world, "exec-1").record.owner == "exec-1"
    assert world.dump() == before


@pytest.mark.parametrize("close", ["withdraw", "finish"])
def test_a_closed_record_says_so_and_still_expires(world: World, close: str) -> None:
    world.published()
    world.withdraw() if close == "withdraw" else world.finish()
    world.kill("exec-1")
    state = adopted(world).record.state
    assert state == ("withdrawn" if close == "withdraw" else "final")
    assert world.redis.pttl(world.task_key) > 0


def test_whether_the_message_waits(world: World) -> None:
    entry = world.published().entry
    assert adopted(world, "exec-1").waiting
    world.park(entry=entry)
    assert adopted(world, "exec-1").waiting
    world.run(world.records.unpark("default", world.drain()[0][0]))
    assert not adopted(world, "exec-1").waiting


def test_whether_the_message_waits_once_it_is_lost(world: World) -> None:
    world.published()
    world.redis.delete(world.queue)
    assert not adopted(world, "exec-1").waiting


def test_what_the_picture_says(world: World) -> None:
    world.published()
    unseen = adopted(world, "exec-1")
    assert (unseen.present, unseen.complete_at, unseen.checkpoint) == (False, 0, 0)
    world.apply(world.event(PodState.RUNNING))
    present = adopted(world, "exec-1")
    assert (present.present, present.complete_at, present.checkpoint) == (True, 0, world.version)
    before = world.now()
    world.listed(200)
    complete = adopted(world, "exec-1")
    assert before <= complete.complete_at <= world.now()
    assert complete.checkpoint == 200
    # While the next list is worked off, the picture proves nothing.
    world.run(world.records.relisting(PLACE, new_generation=False, **TERMS))
    assert adopted(world, "exec-1").complete_at == 0


def test_a_list_proves_absence_up_to_when_it_was_asked_for(world: World) -> None:
    world.published()
    world.run(world.records.relisting(PLACE, new_generation=False, **TERMS))
    world.redis.hset(world.keys.watch(*PLACE), "listing_at", 12345)
    world.run(world.records.synced(PLACE, 300, **TERMS))
    assert adopted(world, "exec-1").complete_at == 12345
    # A bookmark proves the present.
    before = world.now()
    world.run(world.records.checkpoint(PLACE, 301, **TERMS))
    assert adopted(world, "exec-1").complete_at >= before


def test_missing_with_an_incomplete_picture_proves_nothing(world: World) -> None:
    before = world.dump()
    assert world.adopt() == Missing(complete_at=0, since=0)
    assert world.dump() == before


def test_missing_with_a_complete_picture(world: World) -> None:
    before = world.now()
    world.listed()
    reply = world.adopt()
    assert isinstance(reply, Missing)
    assert before <= reply.since <= reply.complete_at <= world.now()
    # `since` is when Redis first had a complete picture; it does not move on.
    world.listed(101)
    again = world.adopt()
    assert again.since == reply.since
    assert again.complete_at >= reply.complete_at
    assert not world.redis.exists(world.task_key)


def test_rewritten_from_the_picture(world: World) -> None:
    event = world.event(PodState.RUNNING, started=Started.YES)
    world.apply(event)
    before = world.now()
    reply = adopted(world)
    assert (reply.record.state, reply.record.owner, reply.record.attempt) == (
        "wanted",
        "exec-2",
        1,
    )
    assert (reply.record.event, reply.record.uid, reply.present) == (event, "uid-1", True)
    # A grant of the lost record may still create: the name is held for a window.
    assert before + WINDOW * 1000 <= reply.record.create_before <= world.now() + WINDOW * 1000
    assert world.redis.zrange(world.keys.tasks, 0, -1) == [world.launch.digest.encode()]
    assert world.redis.pttl(world.task_key) == -1
    # From here on it is a record like any other.
    assert world.apply(event) == "stale"
    assert world.apply(world.event(PodState.SUCCEEDED)) == "applied"
    assert len(world.told("exec-2")) == 1


@pytest.mark.parametrize("end", [PodState.SUCCEEDED, PodState.FAILED])
def test_rewritten_as_final(world: World, end: PodState) -> None:
    world.apply(world.event(end))
    assert adopted(world).record.event.final
    assert world.apply(world.event(PodState.RUNNING)) == "final"
    assert world.grant().why == "launched"


def test_rewritten_with_the_highest_attempt_of_the_picture(world: World) -> None:
    events = {n: world.event(PodState.PENDING, n) for n in (1, 3, 2)}
    for event in events.values():
        world.apply(event)
    reply = adopted(world)
    assert (reply.record.attempt, reply.record.uid) == (3, "uid-3")
    # The others' next events show that they are not wanted.
    assert world.apply(world.event(PodState.RUNNING, 2)) == "unwanted"


def test_rewritten_from_the_known_event(world: World) -> None:
    world.published()
    event = world.event(PodState.RUNNING, started=Started.YES)
    world.report(event)
    lose_records(world)
    reply = adopted(world, "exec-1", known=event)
    assert (reply.record.event, reply.record.uid, reply.present) == (event, "uid-1", False)
    assert world.apply(world.event(PodState.SUCCEEDED)) == "applied"


def test_rewritten_from_the_known_event_of_a_later_attempt(world: World) -> None:
    event = world.event(PodState.RUNNING, 2)
    reply = adopted(world, number=2, known=event)
    assert (reply.record.attempt, reply.record.uid) == (2, "uid-2")


def test_a_known_event_without_a_pod_does_not_stand_in(world: World) -> None:
    waiting = world.no_pod(PodState.WAITING, message="no quota")
    assert isinstance(world.adopt(known=waiting), Missing)


def test_the_picture_is_newer_than_the_known_event(world: World) -> None:
    known = world.event(PodState.PENDING)
    shown = world.event(PodState.SUCCEEDED)
    world.apply(shown)
    assert adopted(world, known=known).record.event == shown


def test_an_earlier_attempt_in_the_picture_does_not_stand_in_for_a_known_later_one(
    world: World,
) -> None:
    """The first attempt's pod waits to be removed while the second one runs."""
    leftover = world.event(PodState.FAILED, 1, started=Started.NEVER)
    world.apply(leftover)
    event = world.event(PodState.RUNNING, 2)
    reply = adopted(world, number=2, known=event)
    assert (reply.record.attempt, reply.record.event) == (2, event)
    assert world.apply(world.event(PodState.SUCCEEDED, 2)) == "applied"


def test_an_earlier_attempt_in_the_picture_does_not_stand_in_for_a_published_later_one(
    world: World,
) -> None:
    """No pod of the second attempt was seen: it is missing, and published again."""
    world.apply(world.event(PodState.FAILED, 1, started=Started.NEVER))
    assert isinstance(world.adopt(number=2), Missing)


def test_a_lost_record_that_is_restored_can_be_granted_again_without_a_pod(world: World) -> None:
    world.published()
    lose_records(world)
    assert isinstance(world.adopt("exec-1"), Missing)
    world.published()
    assert isinstance(world.grant(), Granted)


def test_an_adopted_launch_tells_its_new_owner(world: World) -> None:
    world.published()
    world.apply(world.event(PodState.PENDING))
    world.kill("exec-1")
    adopted(world, "exec-2")
    event: PodEvent = world.event(PodState.RUNNING)
    world.report(event)
    assert world.told("exec-2") == [event]
