"""condemn: a launcher is asked to stop a pod exactly as it was judged."""

from __future__ import annotations

import pytest

from kbroker.event import Cause, PodState, Started
from kbroker.message import Removal
from kbroker.result_stream import ResultStream
from tests.integration.launch_record.world import PLACE, World


def test_asks_to_stop_and_remembers_why(world: World) -> None:
    world.published()
    event = world.event(PodState.PENDING)
    world.apply(event)
    assert world.condemn(event) == "applied"
    (removal,) = world.removals()
    assert removal.removal is Removal.STOP
    assert (removal.uid, removal.resource_version) == ("uid-1", event.resource_version)
    assert (removal.deployment, removal.cluster, removal.namespace) == ("prod", *PLACE)
    assert (removal.cause, removal.reason) == (Cause.IMAGE_PULL, "no such image")
    assert world.record()["state"] == "wanted"


def test_a_launcher_needs_no_lease_to_have_its_pod_stopped(world: World) -> None:
    world.published()
    granted = world.grant()
    event = world.event(PodState.PENDING)
    stop = world.records.stop(event, Cause.ADMISSION, "no Secret")
    assert world.run(stop) == "stale"  # not before it has reported the pod
    world.report(event)
    assert world.run(stop) == "applied"
    (removal,) = world.removals()
    assert (removal.removal, removal.uid) == (Removal.STOP, event.uid)
    assert (removal.cause, removal.reason) == (Cause.ADMISSION, "no Secret")
    assert removal.not_before == granted.create_before


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (Cause.DEADLINE_EXCEEDED, Cause.IMAGE_PULL),
        (Cause.DELETED, Cause.IMAGE_PULL),
        (Cause.OOM_KILLED, Cause.OOM_KILLED),
        (Cause.ERROR, Cause.ERROR),
    ],
)
def test_the_end_takes_the_verdicts_cause_where_it_was_the_stopping(
    world: World, end: Cause, cause: Cause
) -> None:
    world.published()
    event = world.event(PodState.PENDING)
    world.apply(event)
    world.condemn(event)
    world.apply(world.event(PodState.FAILED, cause=end, message="own", started=Started.NEVER))
    last = ResultStream(world.redis, world.keys.results("exec-1")).read(10)[-1].event
    assert last is not None
    assert last.cause is cause
    assert last.message == ("no such image" if cause is Cause.IMAGE_PULL else "own")


def test_within_the_window_a_launcher_stops_it_at_once_and_holds_its_name(world: World) -> None:
    """An unbound pod would otherwise be deleted, and created again by a late request."""
    world.published()
    granted = world.grant()
    event = world.event(PodState.PENDING)
    world.apply(event)
    world.condemn(event)
    (removal,) = world.removals()
    assert removal.not_before == granted.create_before
    assert world.parked_removals() == {}


def test_refusals_write_nothing(world: World) -> None:
    event = world.event(PodState.PENDING)

    def refused(outcome: str, judged=event, **terms) -> None:
        before = world.dump()
        assert world.condemn(judged, **terms) == outcome
        assert world.dump() == before

    refused("unknown")
    world.published()
    refused("stale")  # no pod was seen yet
    world.apply(event)
    refused("lease", as_token="of the leader before")
    refused("stale", world.event(PodState.PENDING, uid="another"))
    refused("stale", world.event(PodState.PENDING, 2, uid="uid-1"))
    world.apply(world.event(PodState.SUCCEEDED))
    refused("final")


@pytest.mark.parametrize("close", ["withdraw", "finish"])
def test_a_closed_launch_is_not_condemned(world: World, close: str) -> None:
    world.published()
    event = world.event(PodState.PENDING)
    world.apply(event)
    world.withdraw() if close == "withdraw" else world.finish()
    assert world.condemn(event) == "final"
    assert "condemned" not in world.record()


def test_the_next_attempt_is_not_condemned(world: World) -> None:
    world.published()
    event = world.event(PodState.PENDING)
    world.apply(event)
    world.condemn(event)
    world.apply(world.event(PodState.FAILED, cause=Cause.DELETED, started=Started.NEVER))
    world.pass_window()
    world.published(2)
    world.apply(world.event(PodState.FAILED, 2, cause=Cause.DELETED, message="own"))
    last = ResultStream(world.redis, world.keys.results("exec-1")).read(10)[-1].event
    assert last is not None
    assert (last.cause, last.message) == (Cause.DELETED, "own")
