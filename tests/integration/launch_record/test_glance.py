"""glance: a launch that stands as its owner believes needs no closer look, any other does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kbroker.event import PodEvent, PodState
from kbroker.launch_reply import Adopted, evidence
from kbroker.task_state import Repair, repair
from tests.integration.launch_record.world import PLACE, WINDOW, World, token

Story = Callable[[World], PodEvent | None]
"""What happens; the last event that the executor applied."""

RUNNING, PENDING = PodState.RUNNING, PodState.PENDING


def in_queue(world: World) -> None:
    world.published()
    world.listed()


def granted(world: World) -> None:
    in_queue(world)
    world.grant()
    world.redis.delete(world.queue)


def launched(world: World) -> PodEvent:
    granted(world)
    world.report(world.event(PENDING))
    event = world.event(RUNNING)
    assert world.apply(event) == "applied"
    return event


def parked(world: World) -> PodEvent:
    world.listed()
    assert world.park(entry=world.published().entry)
    return world.told()[-1]


def parked_anew(world: World) -> PodEvent:
    """For another reason, of which it has not heard yet: launchers tell that themselves."""
    known = parked(world)
    world.run(world.records.report(world.no_pod(PodState.WAITING, message="something else")))
    return known


def changed(world: World) -> PodEvent:
    known = launched(world)
    world.apply(world.event(RUNNING, node="n2"))
    return known


def gone(world: World) -> PodEvent:
    known = launched(world)
    world.redis.delete(world.keys.pods(*PLACE))
    return known


def of_another_pod(world: World) -> PodEvent:
    known = launched(world)
    world.set(uid="another")
    return known


def over(world: World) -> PodEvent:
    known = launched(world)
    world.apply(world.event(PodState.SUCCEEDED))
    return known


def with_fields(**fields: str) -> Story:
    def story(world: World) -> PodEvent:
        known = launched(world)
        world.set(**fields)
        return known

    return story


def without(key: Callable[[World], str]) -> Story:
    def story(world: World) -> PodEvent:
        known = launched(world)
        world.redis.delete(key(world))
        return known

    return story


def untold(world: World) -> None:
    launched(world)


def parked_untold(world: World) -> None:
    parked(world)


AS_BELIEVED: dict[str, Story] = {
    "queued": in_queue,
    "parked": parked,
    "parked for another reason": parked_anew,
    "running": launched,
}
SURPRISING: dict[str, Story] = {
    "its message is lost": granted,
    "its pod is not known here": untold,
    "why it waits is not known here": parked_untold,
    "its pod has changed": changed,
    "its pod is gone": gone,
    "another pod runs it": of_another_pod,
    "it is over": over,
    "it is dead": with_fields(dead="1"),
    "it was withdrawn": with_fields(state="withdrawn"),
    "of another attempt": with_fields(attempt="2"),
    "another executor's": with_fields(owner="exec-2"),
    "a successor's": with_fields(owner_token="of its successor"),
    "its record is lost": without(lambda world: world.task_key),
    "the lease is lost": without(lambda world: world.keys.executor("exec-1")),
}


def glance(world: World, known: PodEvent | None) -> bool:
    attempt, pods = world.attempt(), world.keys.pods(*PLACE)
    call = world.records.glance(token("exec-1"), "exec-1", attempt, pods, known)
    return bool(world.run(call))


@pytest.mark.parametrize("story", AS_BELIEVED.values(), ids=AS_BELIEVED)
def test_there_is_nothing_to_repair_where_all_is_as_believed(world: World, story: Story) -> None:
    known = story(world)
    before = world.dump()
    assert glance(world, known)
    assert world.dump() == before
    reply = world.adopt("exec-1", known=known, claim=False)
    assert isinstance(reply, Adopted)
    assert world.dump() == before
    seen = evidence(reply, world.now())
    assert repair(known, True, int(WINDOW * 1000), seen) is Repair.WAIT


@pytest.mark.parametrize("story", SURPRISING.values(), ids=SURPRISING)
def test_whatever_is_not_as_believed_is_looked_at_closely(world: World, story: Story) -> None:
    known = story(world)
    before = world.dump()
    assert not glance(world, known)
    assert world.dump() == before
