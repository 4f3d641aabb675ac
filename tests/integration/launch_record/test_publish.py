"""publish: the record and its queue entry in one step, or a refusal that changes nothing."""

from __future__ import annotations

import orjson
import pytest

from kbroker.event import PodState, Started
from kbroker.launch_reply import Granted, Published, Refused
from kbroker.message import LaunchMessage
from tests.integration.launch_record.world import WINDOW, World, token


def fail_unstarted(world: World, number: int = 1) -> None:
    """The attempt's pod is seen, and fails without having started; its window is over."""
    world.report(world.event(PodState.PENDING, number))
    assert world.apply(world.event(PodState.FAILED, number, started=Started.NEVER)) == "applied"
    world.pass_window()


def refused(world: World, why: str, number: int = 1, executor: str = "exec-1") -> Refused:
    """Publishing is refused for this reason, and nothing at all is written."""
    before = world.dump()
    reply = world.publish(number, executor)
    assert isinstance(reply, Refused), reply
    assert reply.why == why
    assert world.dump() == before
    return reply


def test_writes_record_entry_and_index(world: World) -> None:
    before = world.now()
    entry = world.published().entry
    assert world.entries() == [entry]
    ((_, fields),) = world.redis.xrange(world.queue)
    body = orjson.loads(fields[b"message"])["args"][0]
    assert LaunchMessage.from_dict(body) == world.message()

    record = world.record()
    assert before <= int(record.pop("published_at")) <= world.now()
    assert record == {
        "v": "1",
        "state": "wanted",
        "attempt": "1",
        "owner": "exec-1",
        "owner_token": token("exec-1"),
        "entry": entry,
        "queue": world.queue,
        "deployment": "prod",
        "key": '["dag","task","run",1,-1]',
        "launch_id": "launch-1",
        "cluster": "default",
        "namespace": "default",
    }
    assert world.redis.pttl(world.task_key) == -1
    assert world.redis.zrange(world.keys.tasks, 0, -1) == [world.launch.digest.encode()]


def test_the_record_never_holds_the_command(world: World) -> None:
    world.published()
    assert "true" not in str(world.record())


@pytest.mark.parametrize("lease", ["missing", "another's"])
def test_nothing_is_written_without_the_lease(world: World, lease: str) -> None:
    if lease == "missing":
        world.kill("exec-1")
    else:
        world.redis.set(world.keys.executor("exec-1"), "of a restarted process")
    refused(world, "lease")


def test_another_executor_owns_it(world: World) -> None:
    world.published()
    assert refused(world, "owner", executor="exec-2").detail == "exec-1"


def test_withdrawn(world: World) -> None:
    world.published()
    world.withdraw()
    refused(world, "withdrawn")
    refused(world, "withdrawn", number=2)


def test_final_after_finish(world: World) -> None:
    world.published()
    world.finish()
    refused(world, "final")
    refused(world, "final", number=2)


def test_final_after_a_failure_without_a_pod(world: World) -> None:
    world.published()
    world.report(world.no_pod(PodState.FAILED))
    refused(world, "final")


@pytest.mark.parametrize("number", [1, 3, 4], ids=["too low", "not the next", "too high"])
def test_neither_this_attempt_nor_the_next(world: World, number: int) -> None:
    world.published()
    fail_unstarted(world)
    world.published(2)
    assert world.record()["attempt"] == "2"
    if number != 3:
        assert refused(world, "attempt", number).detail == "2"
    else:
        assert isinstance(world.publish(number), Published)


def test_launched(world: World) -> None:
    world.published()
    world.report(world.event(PodState.PENDING))
    refused(world, "launched")


def test_waiting_in_its_queue(world: World) -> None:
    entry = world.published().entry
    assert refused(world, "waiting").detail == entry


def test_waiting_while_a_launcher_holds_the_entry(world: World) -> None:
    world.published()
    world.deliver()
    refused(world, "waiting")


def test_waiting_parked(world: World) -> None:
    world.park(entry=world.published().entry)
    assert refused(world, "waiting").detail == "parked"


def test_within_the_create_window_of_a_lost_entry(world: World) -> None:
    entry = world.published().entry
    granted = world.grant()
    assert isinstance(granted, Granted)
    world.redis.xdel(world.queue, entry)
    assert refused(world, "window").create_before == granted.create_before


def test_the_next_attempt_waits_for_the_window_of_the_last(world: World) -> None:
    world.published()
    granted = world.grant()
    fail_unstarted(world)
    world.set(create_before=granted.create_before)
    assert refused(world, "window", number=2).create_before == granted.create_before
    world.pass_window()
    world.published(2)


def test_dead(world: World) -> None:
    world.bury(world.published().entry)
    refused(world, "dead")


def test_a_lost_entry_is_published_again(world: World) -> None:
    lost = world.published().entry
    world.redis.xdel(world.queue, lost)
    again = world.published().entry
    assert again != lost
    assert world.entries() == [again]
    assert world.record()["entry"] == again


def test_a_lost_parked_item_is_published_again(world: World) -> None:
    world.park(entry=world.published().entry)
    world.redis.delete(world.keys.parked("default"), world.keys.parked_messages("default"))
    entry = world.published().entry
    assert world.entries() == [entry]


def test_the_next_attempt_resets_the_record_and_asks_for_the_old_pods_removal(
    world: World,
) -> None:
    world.published()
    world.grant()
    world.apply(world.event(PodState.PENDING))
    world.condemn(world.event(PodState.PENDING))
    world.apply(world.event(PodState.FAILED, started=Started.NEVER))
    world.redis.delete(world.keys.delete_queue("default"))
    world.pass_window()

    entry = world.published(2).entry
    record = world.record()
    assert (record["attempt"], record["state"], record["entry"]) == ("2", "wanted", entry)
    for name in ("uid", "pod", "rv", "event", "final", "dead", "condemned", "create_before"):
        assert name not in record, name
    assert [(r.pod, r.uid, r.removal) for r in world.removals()] == [
        ("dag-task-1", "uid-1", "delete")
    ]
    assert isinstance(world.grant(2), Granted)


def test_the_next_attempt_after_a_failure_without_a_pod_asks_for_no_removal(world: World) -> None:
    world.published()
    world.report(world.no_pod(PodState.FAILED, started=Started.NEVER))
    world.published(2)
    assert world.removals() == []
    assert world.parked_removals() == {}


def test_a_first_attempt_is_published_at_once_after_a_loss_of_redis(world: World) -> None:
    """Its name is the same, so a request from before the loss cannot make a second pod."""
    world.published()
    world.grant()
    world.redis.delete(world.task_key, world.queue, world.keys.tasks)
    world.published()


def test_a_later_attempt_waits_a_window_after_a_loss_of_redis(world: World) -> None:
    """A request of the attempt before may be under way: its window is lost, not over."""
    world.published()
    world.grant()
    fail_unstarted(world)
    world.redis.delete(world.task_key, world.queue, world.keys.tasks)

    held = world.publish(2)
    assert isinstance(held, Refused), held
    assert held.why == "window"
    assert world.now() < held.create_before <= world.now() + WINDOW * 1000
    assert world.entries() == []
    assert isinstance(world.grant(1), Refused)
    refused(world, "window", number=2)
    world.pass_window()
    entry = world.published(2).entry
    assert world.entries() == [entry]
    assert world.redis.zrange(world.keys.tasks, 0, -1) == [world.launch.digest.encode()]
