"""Namespaces without room: one launch a second looks, and the others follow when there is some."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbroker.event import Cause, PodState
from kbroker.local.cluster_process import LocalCluster

from .launcher_world import LauncherProcess, World, poll

LAUNCHERS = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster whose node runs nothing: pods stay what they are."""
    with LocalCluster(tmp_path_factory.mktemp("cluster"), max_pods=0) as running:
        yield running


@pytest.fixture
def world(redis_url: str, cluster: LocalCluster, tmp_path: Path) -> Iterator[World]:
    """A namespace with room for ten pods, and launchers that would wait long by themselves."""
    world = World(
        redis_url,
        cluster,
        tmp_path.name,
        **{"launcher.park_base": 60.0, "launcher.park_max": 60.0, "launcher.drain_interval": 0.2},
    )
    world.quota(10)
    launchers = LauncherProcess(world.config, tmp_path / "log", processes=LAUNCHERS)
    poll("they are up", lambda: launchers.said.count("ready for action") == LAUNCHERS, 60)
    yield world
    launchers.kill()


def asked(world: World) -> collections.Counter[str]:
    """How the API server answered creates of pods."""
    stats = world.admin.get("/_local/stats").items()
    return collections.Counter(
        {k.rpartition(" ")[2]: v for k, v in stats if k.startswith("create pods ")}
    )


def next_look(world: World) -> float:
    """Seconds until somebody looks for room, by Redis' clock."""
    seconds, microseconds = world.redis.time()
    due = world.redis.zscore(world.keys.full("default"), world.namespace)
    return due / 1000 - (seconds + microseconds / 1e6)


def waiting(world: World) -> int:
    return int(world.redis.zcard(world.keys.full_launches("default", world.namespace)))


def test_one_look_a_second_for_all_that_wait(world: World) -> None:
    messages = [world.message(f"t{n}") for n in range(300)]
    world.launch(*messages)
    poll("all but ten wait", lambda: waiting(world) >= 289)
    poll("all are told", lambda: len(world.states()) == 300)
    told = [e for m in messages if (e := world.last(m)) and e.state is PodState.WAITING]
    assert len(told) == 290
    assert all(e.cause is Cause.QUOTA and "exceeded quota: q" in str(e.message) for e in told)
    before, began = asked(world), time.monotonic()
    while time.monotonic() < began + 5:
        assert next_look(world) <= 1.0  # so that room is found and used soon
        time.sleep(0.05)
    looks, took = asked(world) - before, time.monotonic() - began
    assert 2 <= looks["403"] <= took + 1, looks
    assert not looks["201"]
    # What comes now is not even tried.
    more = [world.message(f"more{n}") for n in range(200)]
    before, began = asked(world), time.monotonic()
    world.launch(*more)
    poll("they wait, too", lambda: waiting(world) >= 489)
    poll("they are told", lambda: all(world.last(m) for m in more))
    looks, took = asked(world) - before, time.monotonic() - began
    assert looks["403"] <= took + 1, looks


def test_another_namespace_is_not_concerned(world: World) -> None:
    world.launch(*(world.message(f"full{n}") for n in range(300)))
    poll("all but ten wait", lambda: waiting(world) >= 289)
    other = world.beside(f"{world.namespace[:50]}-other")
    messages = [other.message(f"t{n}") for n in range(200)]
    other.launch(*messages)
    poll("they are created", lambda: len(other.pods()) == 200)
    # None of them was ever parked.
    poll("they are reported", lambda: all(world.last(m) for m in messages))
    states = world.states()
    assert all(states[m.attempt.launch.key.task_id] == ["pending"] for m in messages)
    assert len(world.pods()) == 10


def test_room_is_found_and_used_by_all_that_it_is_enough_for(world: World) -> None:
    messages = [world.message(f"t{n}") for n in range(300)]
    world.launch(*messages)
    poll("all but ten wait", lambda: waiting(world) >= 289)
    before = asked(world)
    quota = f"/api/v1/namespaces/{world.namespace}/resourcequotas/q"
    world.admin.delete(quota)
    world.quota(200)
    began = time.monotonic()
    poll("the first follows", lambda: len(world.pods()) > 10)
    print("first after", time.monotonic() - began)
    poll("there is no room left", lambda: len(world.pods()) == 200)
    print("190 after", time.monotonic() - began)
    looks, took = asked(world) - before, time.monotonic() - began
    # Each round is twice the last, and only a round that finds room is followed by another.
    assert looks["201"] == 190
    assert looks["403"] <= 190 + took + 1, looks
    world.admin.delete(quota)
    poll("all are created", lambda: len(world.pods()) == 300)
    poll("nothing is left", world.idle)
    full = poll("it is forgotten", lambda: not world.redis.zcard(world.keys.full("default")))
    assert full
    assert not world.redis.exists(world.keys.full_namespace("default", world.namespace))
