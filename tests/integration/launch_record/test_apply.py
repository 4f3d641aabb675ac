"""apply and report: the only way a pod event enters."""

from __future__ import annotations

import pytest

from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.result_stream import ResultStream, read_picture, read_watch
from tests.integration.launch_record.world import LEADER_TOKEN, PLACE, WINDOW, World

RUNNING, PENDING = PodState.RUNNING, PodState.PENDING
SUCCEEDED, FAILED = PodState.SUCCEEDED, PodState.FAILED


def picture(world: World) -> dict[str, PodEvent]:
    return read_picture(world.redis, world.keys.pods(*PLACE))


@pytest.mark.parametrize("token", ["another's", "missing"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_lost_lease_writes_nothing_at_all(world: World, token: str, gone: bool) -> None:
    world.published()
    world.apply(world.event(PENDING))
    if token == "missing":
        world.redis.delete(world.keys.lease(*PLACE))
    before = world.dump()
    wanted = LEADER_TOKEN if token == "missing" else "of the leader before"
    assert world.apply(world.event(FAILED), gone=gone, as_token=wanted) == "lease"
    assert world.dump() == before


def test_picture_checkpoint_record_and_stream_in_one_step(world: World) -> None:
    world.published()
    before = world.now()
    event = world.event(RUNNING, started=Started.YES, node="node-1")
    assert world.apply(event) == "applied"
    assert picture(world) == {event.pod: event}
    watch = read_watch(world.redis, world.keys.watch(*PLACE))
    assert (watch.checkpoint, watch.leader) == (event.resource_version, "watcher-1")
    record = world.record()
    assert PodEvent.decode(record["event"]) == event
    assert (record["uid"], record["pod"], record["rv"]) == (
        "uid-1",
        event.pod,
        str(event.resource_version),
    )
    assert before <= int(record["started_at"]) == int(record["event_at"]) <= world.now()
    assert world.told() == [event]


def test_the_owner_is_looked_up_at_that_moment(world: World) -> None:
    world.published()
    world.apply(world.event(PENDING))
    world.kill("exec-1")
    world.adopt("exec-2")
    event = world.event(RUNNING)
    world.apply(event)
    assert len(world.told("exec-1")) == 1
    assert world.told("exec-2") == [event]


def test_started_and_finished_once(world: World) -> None:
    world.published()
    world.apply(world.event(RUNNING))
    world.set(started_at=1)
    world.apply(world.event(RUNNING))
    assert world.record()["started_at"] == "1"
    world.apply(world.event(SUCCEEDED, exit_code=0))
    assert int(world.record()["finished_at"]) > 1
    assert world.record()["final"] == "1"
    # Its executor has not closed it: the record stays, for as long as that takes.
    assert world.record()["state"] == "wanted"
    assert world.redis.pttl(world.task_key) == -1


@pytest.mark.parametrize("back", [0, 1, 50], ids=["same version", "one less", "much less"])
@pytest.mark.parametrize("way", ["watcher", "launcher"])
def test_only_a_higher_version_enters(world: World, back: int, way: str) -> None:
    world.published()
    event = world.event(RUNNING)
    world.apply(event)
    record = world.record()
    older = world.event(PENDING, resource_version=event.resource_version - back)
    assert (world.apply(older) if way == "watcher" else world.report(older)) == "stale"
    assert world.record() == record
    assert world.told() == [event]


def test_versions_compare_as_numbers(world: World) -> None:
    world.published()
    world.apply(world.event(PENDING, resource_version=999))
    assert world.apply(world.event(RUNNING, resource_version=1000)) == "applied"


def test_a_new_generation_accepts_a_lower_version(world: World) -> None:
    world.published()
    world.apply(world.event(PENDING, resource_version=5000))
    terms = {"token": LEADER_TOKEN, "leader": "watcher-1"}
    world.run(world.records.relisting(PLACE, new_generation=True, **terms))
    event = world.event(RUNNING, resource_version=7)
    assert world.apply(event) == "applied"
    assert world.told()[-1] == event
    # From here the new generation's versions compare among themselves.
    assert world.apply(world.event(RUNNING, resource_version=7)) == "stale"
    assert world.apply(world.event(SUCCEEDED, resource_version=8)) == "applied"


@pytest.mark.parametrize("end", [SUCCEEDED, FAILED])
def test_a_final_state_is_sticky(world: World, end: PodState) -> None:
    world.published()
    event = world.event(end)
    world.apply(event)
    record = world.record()
    other = FAILED if end is SUCCEEDED else SUCCEEDED
    for late in (RUNNING, PENDING, other):
        assert world.apply(world.event(late)) == "final"
        assert world.report(world.event(late)) == "final"
    assert world.apply(world.event(FAILED, cause=Cause.DELETED), gone=True) == "final"
    assert world.record() == record
    assert world.told() == [event]
    assert world.removals() == []


def test_final_is_sticky_beyond_finish_and_generations(world: World) -> None:
    world.published()
    world.apply(world.event(SUCCEEDED))
    world.finish()
    terms = {"token": LEADER_TOKEN, "leader": "watcher-1"}
    world.run(world.records.relisting(PLACE, new_generation=True, **terms))
    assert world.apply(world.event(FAILED, resource_version=1)) == "final"
    assert len(world.told()) == 1


def test_an_unknown_record_only_enters_the_picture(world: World) -> None:
    event = world.event(RUNNING)
    before = world.dump()
    assert world.apply(event) == "unknown"
    assert picture(world) == {event.pod: event}
    new = set(world.dump()) - set(before)
    assert new == {world.keys.pods(*PLACE), world.keys.watch(*PLACE)}


def test_a_later_attempt_than_the_records_only_enters_the_picture(world: World) -> None:
    world.published()
    record = world.record()
    event = world.event(RUNNING, 2)
    assert world.apply(event) == "unknown"
    assert picture(world) == {event.pod: event}
    assert (world.record(), world.told(), world.removals()) == (record, [], [])


def test_a_gone_pod_leaves_the_picture(world: World) -> None:
    world.published()
    world.apply(world.event(RUNNING))
    event = world.event(FAILED, cause=Cause.DELETED)
    assert world.apply(event, gone=True) == "applied"
    assert picture(world) == {}
    assert world.told()[-1] == event
    assert world.record()["final"] == "1"


def launched_long_ago(world: World) -> None:
    """The launch was granted, and its window is over."""
    world.published()
    world.grant()
    world.pass_window()


class Unwanted:
    """Ways in which a pod turns out not to be wanted; each returns its event."""

    @staticmethod
    def earlier_attempt(world: World) -> PodEvent:
        launched_long_ago(world)
        world.report(world.no_pod(FAILED, started=Started.NEVER))
        world.published(2)
        return world.event(RUNNING, 1)

    @staticmethod
    def another_uid(world: World) -> PodEvent:
        launched_long_ago(world)
        world.report(world.event(PENDING))
        return world.event(RUNNING, uid="uid-of-a-second-pod")

    @staticmethod
    def withdrawn(world: World) -> PodEvent:
        launched_long_ago(world)
        world.withdraw()
        return world.event(RUNNING)

    @staticmethod
    def after_a_failure_without_a_pod(world: World) -> PodEvent:
        launched_long_ago(world)
        world.report(world.no_pod(FAILED, cause=Cause.ADMISSION))
        return world.event(RUNNING)

    @staticmethod
    def closed_without_a_pod(world: World) -> PodEvent:
        launched_long_ago(world)
        world.report(world.no_pod(FAILED, cause=Cause.ADMISSION))
        world.finish()
        return world.event(RUNNING)


UNWANTED = [
    Unwanted.earlier_attempt,
    Unwanted.another_uid,
    Unwanted.withdrawn,
    Unwanted.after_a_failure_without_a_pod,
    Unwanted.closed_without_a_pod,
]


@pytest.mark.parametrize("scene", UNWANTED)
@pytest.mark.parametrize("way", ["watcher", "launcher"])
def test_an_unwanted_pod_is_removed_once(world: World, scene, way: str) -> None:
    event = scene(world)
    say = world.apply if way == "watcher" else world.report
    told, record = world.told(), world.record()
    assert say(event) == "unwanted"
    (removal,) = world.removals()
    assert (removal.uid, removal.pod, removal.removal) == (event.uid, event.pod, "delete")
    assert (removal.deployment, removal.cluster, removal.namespace) == ("prod", *PLACE)
    assert removal.reason
    assert world.told() == told
    asked = world.record()
    assert int(asked.pop(f"removal:{event.uid}")) <= world.now()
    assert asked == record

    # Asked for again only when the first request must have been lost.
    assert say(event) == "unwanted"
    assert len(world.removals()) == 1
    world.set(**{f"removal:{event.uid}": world.now() - 59_000})
    assert say(event) == "unwanted"
    assert len(world.removals()) == 1
    world.set(**{f"removal:{event.uid}": world.now() - 61_000})
    assert say(event) == "unwanted"
    assert len(world.removals()) == 2


@pytest.mark.parametrize("scene", UNWANTED)
def test_an_unwanted_pod_that_is_gone_asks_for_nothing(world: World, scene) -> None:
    event = scene(world)
    before = world.record()
    assert world.apply(event, gone=True) == "stale"
    assert (world.removals(), world.parked_removals()) == ([], {})
    assert world.record() == before


def test_an_unwanted_pod_is_looked_at_at_once_and_keeps_its_name(world: World) -> None:
    world.published()
    granted = world.grant()
    world.withdraw()
    assert world.report(world.event(PENDING)) == "unwanted"
    # A launcher stops it now, and deletes it when no request can create it again.
    assert [(r.uid, r.not_before) for r in world.removals()] == [("uid-1", granted.create_before)]
    assert world.parked_removals() == {}
    assert granted.create_before <= world.now() + WINDOW * 1000


def test_a_finding_without_a_pod_after_a_pod_was_seen_is_stale(world: World) -> None:
    world.published()
    world.report(world.event(PENDING))
    record = world.record()
    assert world.report(world.no_pod(FAILED, cause=Cause.ADMISSION)) == "stale"
    assert world.record() == record


def test_a_repeated_finding_is_told_once(world: World) -> None:
    world.published()
    waiting = world.no_pod(PodState.WAITING, cause=Cause.QUOTA, message="no quota")
    assert world.report(waiting) == "applied"
    assert world.report(waiting) == "stale"
    assert world.told() == [waiting]
    other = world.no_pod(PodState.WAITING, cause=Cause.THROTTLED, message="come back")
    assert world.report(other) == "applied"
    assert world.told() == [waiting, other]


@pytest.mark.parametrize("record", [True, False], ids=["with a record", "without a record"])
def test_a_launchers_report_does_not_touch_the_picture(world: World, record: bool) -> None:
    if record:
        world.published()
    outcome = world.report(world.event(PENDING))
    assert outcome == ("applied" if record else "unknown")
    assert not world.redis.exists(world.keys.pods(*PLACE), world.keys.watch(*PLACE))


def test_a_pod_of_a_buried_message_wins(world: World) -> None:
    world.bury(world.published().entry)
    event = world.event(RUNNING)
    assert world.apply(event) == "applied"
    assert world.told()[-1] == event


def test_exact_values_travel(world: World) -> None:
    """Unicode, quotes and large versions arrive as they were sent."""
    world.published()
    event = world.event(
        FAILED,
        resource_version=2**53 - 1,
        message='naïve "quotes" \\ 漢字 \x01 ' + "x" * 500,
        exit_code=137,
        at=1763884800.25,
    )
    assert world.apply(event) == "applied"
    assert world.told() == [event]
    (result,) = ResultStream(world.redis, world.keys.results("exec-1")).read(10)
    assert result.event == event
    assert picture(world) == {event.pod: event}


def test_the_owner_hears_of_a_pending_pod_only_what_is_new(world: World) -> None:
    """That it was bound, or written to, stands in the record; why it waits is told."""
    world.published()
    first = world.event(PENDING)
    assert world.report(first) == "applied"
    bound = world.event(PENDING, node="node-1")
    assert world.apply(bound) == "applied"
    assert PodEvent.decode(world.record()["event"]) == bound
    assert world.told() == [first]
    pulling = world.event(PENDING, node="node-1", cause=Cause.IMAGE_PULL, message="no such image")
    better = world.event(PENDING, node="node-1")
    runs = world.event(RUNNING)
    for event in (pulling, better, runs):
        assert world.apply(event) == "applied"
    assert world.told() == [first, pulling, better, runs]


def test_the_owner_hears_that_a_parked_launch_has_its_pod(world: World) -> None:
    world.published()
    waits = world.event(PodState.WAITING, uid=None, resource_version=0, message="no quota")
    assert world.report(waits) == "applied"
    created = world.event(PENDING)
    assert world.report(created) == "applied"
    assert world.told() == [waits, created]
