"""finish: the events go, the pod may go, the record closes."""

from __future__ import annotations

import pytest

from kbroker.event import PodState, Started
from tests.integration.launch_record.world import RECORD_TTL, WINDOW, World


def succeed(world: World) -> list[str]:
    """The launch runs and succeeds; the ids of its stream entries."""
    world.apply(world.event(PodState.RUNNING, started=Started.YES))
    world.apply(world.event(PodState.SUCCEEDED, exit_code=0))
    return [entry.decode() for entry, _ in world.redis.xrange(world.keys.results("exec-1"))]


def test_removes_the_pod_at_once_when_its_name_need_not_be_held(world: World) -> None:
    world.published()
    world.grant()
    entries = succeed(world)
    world.pass_window()
    assert world.finish(entries=entries, removal=world.removal()) == "ok"
    (removal,) = world.removals()
    assert (removal.pod, removal.uid, removal.removal) == ("dag-task-1", "uid-1", "delete")
    assert removal.reason == "it has finished"
    assert world.parked_removals() == {}


def test_parks_the_removal_until_the_window_is_over(world: World) -> None:
    world.published()
    granted = world.grant()
    entries = succeed(world)
    world.finish(entries=entries, removal=world.removal())
    assert world.removals() == []
    parked = world.parked_removals()["delete:uid-1"]
    assert (parked.not_before, parked.uid) == (granted.create_before, "uid-1")
    assert world.drain() == []
    world.redis.zadd(world.keys.parked("default"), {"delete:uid-1": 0})
    assert [item for item, _ in world.drain()] == ["delete:uid-1"]


def test_parks_the_removal_for_a_window_after_a_loss_of_redis(world: World) -> None:
    """What was granted before the loss is not known: its window is lost, not over."""
    world.published()
    world.grant()
    succeed(world)
    world.redis.delete(world.task_key, world.queue, world.keys.tasks)
    before = world.now()
    assert world.finish(removal=world.removal()) == "ok"
    assert world.removals() == []
    parked = world.parked_removals()["delete:uid-1"]
    assert before + WINDOW * 1000 <= parked.not_before <= world.now() + WINDOW * 1000
    assert not world.redis.exists(world.task_key)


def test_parks_the_removal_of_a_pod_that_was_granted_before_a_loss_of_redis(world: World) -> None:
    """Its launch was published again: the new record never granted the pod that it hears of."""
    world.published()
    world.grant()
    world.redis.delete(world.task_key, world.queue, world.keys.tasks)
    world.published()
    before = world.now()
    entries = succeed(world)
    held = int(world.record()["create_before"])
    assert before + WINDOW * 1000 <= held <= world.now() + WINDOW * 1000
    world.finish(entries=entries, removal=world.removal())
    assert world.removals() == []
    assert world.parked_removals()["delete:uid-1"].not_before == held


def test_deletes_its_entries_and_no_others(world: World) -> None:
    world.published()
    entries = succeed(world)
    other = world.redis.xadd(world.keys.results("exec-1"), {"event": "of another launch"})
    world.finish(entries=entries)
    left = [entry for entry, _ in world.redis.xrange(world.keys.results("exec-1"))]
    assert left == [other]


def test_closes_the_record(world: World) -> None:
    world.published()
    world.finish(entries=succeed(world))
    record = world.record()
    assert record["state"] == "final"
    assert int(record["closed_at"]) <= world.now()
    assert 0 < world.redis.pttl(world.task_key) <= RECORD_TTL * 1000
    assert world.redis.zcard(world.keys.tasks) == 0


def test_the_finished_pods_events_ask_for_no_second_removal(world: World) -> None:
    world.published()
    entries = succeed(world)
    world.pass_window()
    world.finish(entries=entries, removal=world.removal())
    assert world.apply(world.event(PodState.SUCCEEDED)) == "final"
    assert world.apply(world.event(PodState.SUCCEEDED), gone=True) == "final"
    assert len(world.removals()) == 1


def test_a_pod_may_stay(world: World) -> None:
    world.published()
    world.finish(entries=succeed(world))
    assert (world.removals(), world.parked_removals()) == ([], {})


def test_again_changes_nothing_that_matters(world: World) -> None:
    world.published()
    entries = succeed(world)
    world.finish(entries=entries)
    record = world.record()
    assert world.finish(entries=entries) == "ok"
    again = world.record()
    assert {k: v for k, v in again.items() if k != "closed_at"} == {
        k: v for k, v in record.items() if k != "closed_at"
    }


def test_a_withdrawn_launch_stays_withdrawn(world: World) -> None:
    world.published()
    world.withdraw()
    assert world.finish() == "ok"
    assert world.record()["state"] == "withdrawn"


@pytest.mark.parametrize("lease", ["missing", "another's"])
def test_nothing_is_written_without_the_lease(world: World, lease: str) -> None:
    world.published()
    entries = succeed(world)
    if lease == "missing":
        world.kill("exec-1")
    before = world.dump()
    as_token = "" if lease == "missing" else "another's"
    assert world.finish(entries=entries, removal=world.removal(), as_token=as_token) == "lease"
    assert world.dump() == before


def test_a_launch_that_another_executor_adopted_is_left_alone(world: World) -> None:
    """Only the events that were told to the old owner go: they stand in its own stream."""
    world.published()
    entries = succeed(world)
    world.kill("exec-1")
    world.adopt("exec-2")
    world.revive("exec-1")
    record = world.record()
    assert world.finish("exec-1", entries, world.removal()) == "owner"
    assert world.record() == record
    assert (world.removals(), world.told("exec-1")) == ([], [])
    assert world.redis.zcard(world.keys.tasks) == 1


def test_what_is_left_without_an_expiry_after_a_finished_launch(world: World) -> None:
    """Empty queues, the leader's progress; nothing that grows with the number of launches."""
    world.listed()
    entry = world.published().entry
    world.deliver()
    world.grant()
    world.redis.xack(world.queue, "launchers", entry)
    world.redis.xdel(world.queue, entry)
    entries = succeed(world)
    world.finish(entries=entries, removal=world.removal())
    world.redis.zadd(world.keys.parked("default"), {"delete:uid-1": 0})
    ((item, _),) = world.drain()
    world.apply(world.event(PodState.SUCCEEDED), gone=True)
    world.run(world.records.unpark("default", item))

    for_ever = {name: content for name, (content, expires) in world.dump().items() if not expires}
    assert set(for_ever) == {
        world.queue,
        world.keys.executors,  # until its owner ends, or is gone for long
        world.keys.results("exec-1"),
        world.keys.watch("default", "default"),
    }
    assert world.redis.xlen(world.queue) == 0
    assert world.redis.xlen(world.keys.results("exec-1")) == 0


def test_what_is_left_without_an_expiry_after_a_withdrawn_launch(world: World) -> None:
    world.published()
    world.grant()
    world.withdraw()
    world.apply(world.event(PodState.RUNNING))
    removals = world.keys.delete_queue("default")
    world.redis.xtrim(removals, maxlen=0)  # a launcher has carried it out
    world.apply(world.event(PodState.FAILED), gone=True)
    for_ever = {name for name, (_, expires) in world.dump().items() if not expires}
    known = world.keys.executors  # until its owner ends, or is gone for long
    assert for_ever == {world.queue, removals, known, world.keys.watch("default", "default")}
