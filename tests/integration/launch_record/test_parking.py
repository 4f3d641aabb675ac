"""park, drain, unpark and bury: messages that wait, and messages that never will be done."""

from __future__ import annotations

import orjson
import pytest

from kbroker.event import PodState, Started
from kbroker.keys import LAUNCHERS_GROUP
from kbroker.launch_reply import Granted, Refused
from kbroker.message import LaunchMessage
from kbroker.record_scripts import launch_item, removal_item
from tests.integration.launch_record.world import World


def score(world: World, item: str) -> float | None:
    value = world.redis.zscore(world.keys.parked("default"), item)
    return None if value is None else float(value)


def make_due(world: World, item: str) -> None:
    world.redis.zadd(world.keys.parked("default"), {item: 0})


def test_park_moves_the_message_in_one_step(world: World) -> None:
    entry = world.published().entry
    world.deliver()
    before = world.now()
    assert world.park(delay=5.0, entry=entry) is True
    item = launch_item(world.attempt())
    assert before + 5000 <= score(world, item) <= world.now() + 5000
    assert world.entries() == []
    assert world.redis.xpending(world.queue, LAUNCHERS_GROUP)["pending"] == 0
    assert world.record()["entry"] == "parked"
    (told,) = world.told()
    assert (told.state, told.message) == (PodState.WAITING, "no quota")
    assert world.drain() == []


def test_a_due_item_comes_back_whole(world: World) -> None:
    world.park(entry=world.published().entry)
    ((item, payload),) = world.drain()
    assert item == launch_item(world.attempt())
    assert LaunchMessage.from_dict(orjson.loads(payload)) == world.message()
    assert isinstance(world.grant(), Granted)


def test_the_owner_is_told_once_for_each_reason(world: World) -> None:
    world.park(entry=world.published().entry)
    world.park()
    world.park(reason="come back later")
    assert [event.message for event in world.told()] == ["no quota", "come back later"]


def test_nothing_is_lost_when_a_drainer_dies(world: World) -> None:
    world.park(entry=world.published().entry)
    item = launch_item(world.attempt())
    before = world.now()
    assert len(world.drain(lease=60.0)) == 1
    # While it is worked on, nobody else gets it.
    assert world.drain() == []
    assert before + 60_000 <= score(world, item) <= world.now() + 60_000
    # Its drainer never said what came of it: due again.
    make_due(world, item)
    assert [name for name, _ in world.drain()] == [item]


def test_what_is_done_does_not_come_back(world: World) -> None:
    world.park(entry=world.published().entry)
    ((item, _),) = world.drain()
    world.run(world.records.unpark("default", item))
    assert not world.redis.exists(
        world.keys.parked("default"), world.keys.parked_messages("default")
    )


def test_a_drained_item_is_parked_again(world: World) -> None:
    world.park(entry=world.published().entry)
    world.drain()
    before = world.now()
    assert world.park(delay=7.0) is True
    assert score(world, launch_item(world.attempt())) >= before + 7000
    assert world.redis.hlen(world.keys.parked_messages("default")) == 1


def test_drain_is_bounded_and_takes_the_longest_due_first(world: World) -> None:
    for number in range(5):
        world.redis.zadd(world.keys.parked("default"), {f"delete:{number}": number})
        world.redis.hset(world.keys.parked_messages("default"), f"delete:{number}", "{}")
    assert [item for item, _ in world.drain(limit=2)] == ["delete:0", "delete:1"]
    assert [item for item, _ in world.drain(limit=2)] == ["delete:2", "delete:3"]


def test_an_item_without_its_message_is_forgotten(world: World) -> None:
    make_due(world, "launch:lost:1")
    assert world.drain() == []
    assert not world.redis.exists(world.keys.parked("default"))


def gone(world: World, how: str) -> None:
    """The launch is not wanted as this attempt any more."""
    match how:
        case "withdrawn":
            world.withdraw()
        case "finished":
            world.finish()
        case "lost":
            world.redis.delete(world.task_key)
        case "launched":
            world.report(world.event(PodState.PENDING))
        case "failed":
            world.report(world.no_pod(PodState.FAILED, started=Started.NEVER))
        case "replaced":
            world.report(world.no_pod(PodState.FAILED, started=Started.NEVER))
            world.published(2)


@pytest.mark.parametrize("how", ["withdrawn", "finished", "lost", "launched", "failed", "replaced"])
@pytest.mark.parametrize("held", ["entry", "drained item"])
def test_park_drops_what_nobody_wants(world: World, how: str, held: str) -> None:
    entry = world.published().entry
    if held == "drained item":
        world.park(entry=entry)
        world.drain()
        entry = ""
    gone(world, how)
    told, record = world.told(), world.record()
    assert world.park(entry=entry) is False
    assert not world.redis.exists(
        world.keys.parked("default"), world.keys.parked_messages("default")
    )
    assert entry not in world.entries()
    assert (world.told(), world.record()) == (told, record)


def test_a_launch_whose_pod_waits_for_more_than_its_creation_is_kept(world: World) -> None:
    entry = world.published().entry
    world.report(world.event(PodState.PENDING))
    told, event = world.told(), world.record()["event"]
    assert world.park(entry=entry, even_launched=True) is True
    # Its pod is known: that it waits for a launcher is no news of it.
    assert (world.told(), world.record()["event"]) == (told, event)
    ((item, _),) = world.drain()
    assert world.grant().why == "launched"
    assert world.park(even_launched=True) is True
    world.withdraw()
    assert score(world, item) is None


@pytest.mark.parametrize("how", ["withdrawn", "finished", "lost", "failed", "replaced"])
def test_even_then_nobody_keeps_what_nobody_wants(world: World, how: str) -> None:
    entry = world.published().entry
    gone(world, how)
    assert world.park(entry=entry, even_launched=True) is False


def test_a_removal_is_parked_without_a_record(world: World) -> None:
    message = world.removal()
    queue = world.keys.delete_queue("default")
    entry = world.redis.xadd(queue, {"message": "{}"}).decode()
    reply = world.run(
        world.records.park(
            "default",
            removal_item(message),
            orjson.dumps(message.as_dict()),
            0.0,
            entry=(queue, entry),
            event=None,
        )
    )
    assert reply is True
    assert world.redis.xlen(queue) == 0
    ((item, payload),) = world.drain()
    assert (item, orjson.loads(payload)) == ("delete:uid-1", message.as_dict())


# bury


def test_bury_keeps_message_and_reason_and_withdraws_the_permission(world: World) -> None:
    entry = world.published().entry
    world.deliver()
    assert world.bury(entry) is True
    ((_, fields),) = world.redis.xrange(world.keys.dead)
    assert fields == {
        b"queue": world.queue.encode(),
        b"entry": entry.encode(),
        b"reason": b"killed 3 launchers",
        b"message": b"{}",
    }
    assert world.entries() == []
    assert world.redis.xpending(world.queue, LAUNCHERS_GROUP)["pending"] == 0
    record = world.record()
    assert (record["state"], record["dead"]) == ("wanted", "killed 3 launchers")
    assert "entry" not in record
    (told,) = world.told()
    assert told.message == "killed 3 launchers"
    assert world.grant().why == "dead"


def test_bury_happens_once_by_two_launchers(world: World) -> None:
    entry = world.published().entry
    assert [world.bury(entry), world.bury(entry)] == [True, False]
    assert world.redis.xlen(world.keys.dead) == 1
    assert len(world.told()) == 1


def test_bury_of_garbage_touches_no_record(world: World) -> None:
    world.published()
    garbage = world.redis.xadd(world.queue, {"message": "\x00"}).decode()
    record = world.record()
    assert world.bury(garbage, readable=False) is True
    assert world.redis.xlen(world.keys.dead) == 1
    assert (world.record(), world.told()) == (record, [])


def test_bury_of_a_pod_that_exists_says_nothing_against_it(world: World) -> None:
    """The pod wins: its own events say how it ends."""
    entry = world.published().entry
    world.grant()
    world.report(world.event(PodState.RUNNING))
    told = world.told()
    world.bury(entry)
    assert world.told() == told
    assert world.apply(world.event(PodState.SUCCEEDED)) == "applied"


@pytest.mark.parametrize("how", ["withdrawn", "finished", "lost", "failed", "replaced"])
def test_bury_of_what_nobody_wants_only_keeps_the_message(world: World, how: str) -> None:
    world.published()
    entry = world.redis.xadd(world.queue, {"message": "a copy"}).decode()
    gone(world, how)
    told, record = world.told(), world.record()
    assert world.bury(entry) is True
    assert (world.told(), world.record()) == (told, record)
    assert world.redis.xlen(world.keys.dead) == 1


def test_a_buried_attempt_may_be_followed_by_the_next(world: World) -> None:
    world.bury(world.published().entry)
    assert world.publish() == Refused("dead")
    world.published(2)
    assert isinstance(world.grant(2), Granted)
