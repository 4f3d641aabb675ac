"""relisting, synced and checkpoint: the leading watcher's progress."""

from __future__ import annotations

import pytest

from kbroker.result_stream import WatchProgress, read_watch
from tests.integration.launch_record.world import LEADER_TOKEN, PLACE, World


def progress(world: World) -> WatchProgress:
    return read_watch(world.redis, world.keys.watch(*PLACE))


def step(world: World, name: str, version: int = 0, **terms) -> bool:
    terms = {"token": LEADER_TOKEN, "leader": "watcher-1", **terms}
    if name == "relisting":
        call = world.records.relisting(PLACE, new_generation=bool(version), **terms)
    elif name == "synced":
        call = world.records.synced(PLACE, version, **terms)
    else:
        call = world.records.checkpoint(PLACE, version, **terms)
    reply: bool = world.run(call)
    return reply


@pytest.mark.parametrize("name", ["relisting", "synced", "checkpoint"])
def test_nothing_is_written_without_the_lease(world: World, name: str) -> None:
    before = world.dump()
    assert step(world, name, 1, token="of the leader before") is False
    world.redis.delete(world.keys.lease(*PLACE))
    assert step(world, name, 1) is False
    before.pop(world.keys.lease(*PLACE))
    assert world.dump() == before


def test_nothing_yet(world: World) -> None:
    assert progress(world) == WatchProgress()
    assert progress(world).complete_at == 0


def test_a_list_makes_the_picture_complete(world: World) -> None:
    before = world.now()
    assert step(world, "relisting")
    assert progress(world).complete_at == 0
    assert step(world, "synced", 500)
    present = progress(world)
    assert (present.checkpoint, present.listed, present.leader) == (500, 500, "watcher-1")
    assert before <= present.complete_at <= present.synced_at <= world.now()


def test_a_bookmark_moves_progress_on(world: World) -> None:
    step(world, "relisting")
    step(world, "synced", 500)
    world.redis.hset(world.keys.watch(*PLACE), "progress", 1)
    assert step(world, "checkpoint", 510)
    present = progress(world)
    assert (present.checkpoint, present.listed) == (510, 500)
    assert present.complete_at > 1


def test_a_bookmark_during_a_list_completes_nothing(world: World) -> None:
    step(world, "relisting")
    step(world, "checkpoint", 510)
    assert progress(world).complete_at == 0


def test_relisting_begins_a_generation_only_when_versions_fell(world: World) -> None:
    step(world, "relisting")
    assert progress(world).generation == 0
    step(world, "relisting", 1)
    step(world, "relisting", 1)
    assert progress(world).generation == 2
