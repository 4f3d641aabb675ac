"""grant: permission is positive and dated; an absent record means no."""

from __future__ import annotations

import pytest

from kbroker.event import PodState, Started
from kbroker.launch_reply import Granted, Refused
from tests.integration.launch_record.world import WINDOW, World


def refused(world: World, why: str, number: int = 1, expires_at: int | None = None) -> Refused:
    """No permission for this reason, and nothing at all is written."""
    before = world.dump()
    reply = world.grant(number, expires_at)
    assert isinstance(reply, Refused), reply
    assert reply.why == why
    assert world.dump() == before
    return reply


def test_is_dated_by_redis_clock_and_stored(world: World) -> None:
    world.published()
    before = world.now()
    granted = world.grant()
    assert isinstance(granted, Granted)
    assert before <= granted.now <= world.now()
    assert granted.create_before == granted.now + WINDOW * 1000
    record = world.record()
    assert record["create_before"] == str(granted.create_before)
    assert record["granted_at"] == str(granted.now)
    assert record["launcher"] == "launcher-1"


def test_absent(world: World) -> None:
    refused(world, "absent")


def test_withdrawn(world: World) -> None:
    world.published()
    world.withdraw()
    refused(world, "withdrawn")


def test_final(world: World) -> None:
    world.published()
    world.finish()
    refused(world, "final")


def test_final_after_a_failure_without_a_pod(world: World) -> None:
    world.published()
    world.report(world.no_pod(PodState.FAILED))
    refused(world, "final")


@pytest.mark.parametrize("number", [1, 3], ids=["an earlier one", "a later one"])
def test_another_attempt(world: World, number: int) -> None:
    world.published()
    world.report(world.no_pod(PodState.FAILED, started=Started.NEVER))
    world.published(2)
    refused(world, "attempt", number)


def test_launched(world: World) -> None:
    world.published()
    granted = world.grant()
    world.report(world.event(PodState.PENDING))
    assert refused(world, "launched").create_before == granted.create_before


def test_dead(world: World) -> None:
    world.bury(world.published().entry)
    refused(world, "dead")


def test_expired(world: World) -> None:
    world.published()
    assert refused(world, "expired", expires_at=world.now() - 1).create_before == 0
    assert isinstance(world.grant(expires_at=world.now() + 10_000), Granted)


def test_expired_after_an_earlier_grant_says_so(world: World) -> None:
    """Its pod may exist: the launcher must look before it says that there is none."""
    world.published()
    granted = world.grant()
    late = refused(world, "expired", expires_at=world.now() - 1)
    assert late.create_before == granted.create_before


def test_again_extends_the_window(world: World) -> None:
    world.published()
    world.grant()
    world.pass_window()
    again = world.grant()
    assert again.create_before == again.now + WINDOW * 1000
    assert world.record()["create_before"] == str(again.create_before)


def test_never_shortens_the_window(world: World) -> None:
    """Another launcher may have a longer one configured."""
    world.published()
    later = world.now() + 10 * int(WINDOW * 1000)
    world.set(create_before=later)
    assert world.grant().create_before == later
    assert world.record()["create_before"] == str(later)


def test_a_later_attempt_has_a_window_of_its_own(world: World) -> None:
    world.published()
    world.grant()
    world.report(world.no_pod(PodState.FAILED, started=Started.NEVER))
    world.pass_window()
    world.published(2)
    assert "create_before" not in world.record()
    second = world.grant(2)
    assert second.create_before == second.now + WINDOW * 1000
