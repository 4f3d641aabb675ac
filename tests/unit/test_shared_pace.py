"""Launchers that share a pace, in virtual time, against an API server that takes so much."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import fakeredis
import fakeredis.aioredis
import pytest

from kbroker.keys import RedisKeys
from kbroker.pace import LEAST, Lane

from .pace_world import PaceWorld, clocks_of_redis
from .virtual_time import VirtualLoop, run_virtually

LAUNCHERS = 4
SECONDS = 25.0

Story = Callable[[PaceWorld], Awaitable[None]]


def played(story: Story, seed: int = 1, *, limit: float = 0.0, **server: float) -> PaceWorld:
    """The world after the story."""
    loop = VirtualLoop()

    async def main() -> PaceWorld:
        world = PaceWorld(loop, seed, limit=limit, **server)
        await story(world)
        await world.close()
        return world

    with clocks_of_redis(loop):
        return run_virtually(main(), loop)


async def busy(world: PaceWorld, seconds: float = SECONDS) -> None:
    for _ in range(LAUNCHERS):
        world.start()
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("seed", range(12))
def test_all_launchers_together_keep_to_what_the_api_server_takes(seed: int) -> None:
    world = played(busy, seed)
    server = world.server
    created = server.created.total()
    assert created - server.burst >= 0.9 * server.rate * SECONDS
    assert len(server.refused) < 0.05 * len(server.requests)
    assert min(server.created.values()) >= 0.1 * created
    assert len(server.created) == LAUNCHERS
    assert not world.parked


@pytest.mark.parametrize(
    ("server", "least"),
    [
        ({"rate": 20.0, "burst": 20.0}, 0.9),
        ({"rate": 500.0, "burst": 500.0}, 0.9),
        ({"burst": 300.0}, 0.9),
        ({"retry_after": None}, 0.9),
        ({"latency": 0.5}, 0.9),
        ({"burst": 20.0}, 0.75),
    ],
)
def test_other_servers(server: dict[str, float], least: float) -> None:
    """Once the rate is found; a server that takes little at once says less about it."""
    world = played(lambda world: busy(world, 40.0), **server)
    late = [moment for moment in world.server.requests if moment > 20]
    refused = [moment for moment in world.server.refused if moment > 20]
    assert len(refused) < 0.05 * len(late)
    assert len(late) - len(refused) >= least * world.server.rate * 20


def test_without_a_complaint_nothing_is_limited_and_nothing_more_is_asked_of_redis() -> None:
    async def story(world: PaceWorld) -> None:
        await busy(world, 5.0)
        assert all(math.isinf(launcher.pace.rate) for launcher in world.launchers)
        # One look for each batch and nothing else, but that the first ones load the script.
        assert world.calls <= world.batches + 4 * LAUNCHERS
        assert "rate" not in world.state()
        assert "turn" not in world.state()

    world = played(story, rate=10_000.0, burst=10_000.0, latency=0.1)
    assert not world.server.refused


def test_an_api_server_that_can_take_more_gets_more() -> None:
    async def story(world: PaceWorld) -> None:
        await busy(world, 10.0)
        world.server.rate = world.server.burst = 100.0
        await asyncio.sleep(50)
        world.server.created.clear()
        await asyncio.sleep(10)

    assert played(story, rate=30.0, burst=30.0).server.created.total() >= 0.9 * 100 * 10


def test_an_api_server_that_can_take_less_is_given_less() -> None:
    async def story(world: PaceWorld) -> None:
        await busy(world)
        world.server.rate = world.server.burst = 10.0
        await asyncio.sleep(10)
        world.server.requests.clear()
        world.server.refused.clear()
        await asyncio.sleep(30)

    server = played(story).server
    assert len(server.refused) < 0.15 * len(server.requests)
    assert len(server.requests) - len(server.refused) >= 0.75 * 10 * 30


def test_after_an_outage_the_old_rate_is_soon_found_again() -> None:
    async def story(world: PaceWorld) -> None:
        await busy(world)
        world.server.rate = world.server.burst = world.server.tokens = 0.0
        await asyncio.sleep(20)
        assert max(launcher.pace.rate for launcher in world.launchers) < 30
        world.server.rate = world.server.burst = 100.0
        world.server.created.clear()
        await asyncio.sleep(30)

    assert played(story).server.created.total() >= 0.6 * 100 * 30


def test_the_configured_limit_is_kept() -> None:
    world = played(lambda world: busy(world, 10.0), limit=50.0, rate=1000.0, burst=1000.0)
    assert 0.9 * 500 <= len(world.server.requests) <= 1.05 * 500
    assert not world.server.refused


def test_a_launcher_that_dies_costs_only_its_slots() -> None:
    async def story(world: PaceWorld) -> None:
        await busy(world)
        await world.launchers[0].die()
        await world.launchers[1].die()
        world.server.created.clear()
        await asyncio.sleep(10)

    world = played(story)
    assert set(world.server.created) == {2, 3}
    assert world.server.created.total() >= 0.85 * 100 * 10


def test_when_redis_is_emptied_the_pace_starts_over() -> None:
    async def story(world: PaceWorld) -> None:
        await busy(world)
        await fakeredis.aioredis.FakeRedis(server=world.redis).flushall()
        world.server.requests.clear()
        world.server.refused.clear()
        await asyncio.sleep(20)

    server = played(story).server
    assert len(server.refused) < 0.1 * len(server.requests)
    assert len(server.requests) - len(server.refused) >= 0.85 * 100 * 20


def test_after_a_minute_without_a_complaint_nothing_is_limited() -> None:
    async def story(world: PaceWorld) -> None:
        await busy(world, 5.0)
        world.backlog = 0
        await asyncio.sleep(90)
        assert all(math.isinf(launcher.pace.rate) for launcher in world.launchers)
        world.server.rate = world.server.burst = world.server.tokens = 10_000.0
        world.server.created.clear()
        world.backlog = 1000
        await asyncio.sleep(2)
        assert world.server.created.total() == 1000
        assert not {"turn", "rate"} & world.state().keys()
        # What nobody uses any more goes away.
        key = RedisKeys().pace("default")
        assert 0 < fakeredis.FakeRedis(server=world.redis).ttl(key) <= 150

    played(story)


def test_a_lone_complaint_costs_its_pause_and_no_more() -> None:
    async def story(world: PaceWorld) -> None:
        await busy(world, 2.0)
        before = world.server.created.total()
        await world.launchers[0].pace.refused(1.0)
        await asyncio.sleep(0.9)
        # What was in hand when the others had not heard of it, of thousands.
        assert world.server.created.total() - before <= LAUNCHERS * 200
        await asyncio.sleep(1.5)
        assert all(math.isinf(launcher.pace.rate) for launcher in world.launchers)
        assert "turn" not in world.state()

    played(story, rate=10_000.0, burst=10_000.0, latency=0.05)


def test_what_cannot_be_sent_in_time_is_parked_as_throttled() -> None:
    async def story(world: PaceWorld) -> None:
        await busy(world, 90.0)

    world = played(story, rate=1.0, burst=1.0, retry_after=None)
    assert set(world.parked) == {"park: throttled"}
    assert world.server.created.total() >= LEAST * 90 * 0.5


# Removals.


@pytest.mark.parametrize(
    ("counts_removals", "left"),
    [pytest.param(True, 0.75, id="of either kind"), pytest.param(False, 0.9, id="of creates")],
)
def test_removals_yield_to_launches_and_follow_when_these_are_done(
    counts_removals: bool, left: float
) -> None:
    """The API server takes 100 requests a second; of either kind, or of creates alone."""

    async def story(world: PaceWorld) -> None:
        world.server.counts_removals = counts_removals
        world.backlog = 1500
        for _ in range(LAUNCHERS):
            world.start(removers=2)
        while world.server.created.total() < 1500:
            await asyncio.sleep(0.1)
        world.took = world.loop.time()
        await asyncio.sleep(60)

    world = played(story)
    assert world.took <= 1500 / (left * 100)
    assert world.removed == 1500


def test_a_removal_waits_only_while_something_is_limited() -> None:
    async def story(world: PaceWorld) -> None:
        pace = world.start(threads=0).pace
        assert await pace.turn(Lane.REMOVE, world.loop.time() + 0.5)
        await pace.complain(10.0)
        assert not await pace.turn(Lane.REMOVE, world.loop.time() + 0.5)
        assert not await pace.turn(Lane.CREATE, world.loop.time() + 5.0)
        began = world.loop.time()
        assert await pace.turn(Lane.CREATE, world.loop.time() + 20.0)
        assert 9.0 <= world.loop.time() - began <= 11.0

    played(story)
