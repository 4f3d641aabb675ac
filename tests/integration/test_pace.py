"""Four launcher processes keep the pace of an API server that takes 100 creates a second."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kbroker.event import PodState
from kbroker.local.cluster_process import LocalCluster
from kbroker.message import LaunchMessage

from .launcher_world import LauncherProcess, World, poll

LIMIT = 100
SECONDS = 25.0
LAUNCHERS = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster whose node runs nothing: the API server has the machine for itself."""
    with LocalCluster(tmp_path_factory.mktemp("cluster"), max_pods=0) as running:
        yield running


@pytest.fixture
def world(redis_url: str, cluster: LocalCluster, tmp_path: Path) -> Iterator[World]:
    yield World(redis_url, cluster, tmp_path.name)
    cluster.admin.delete("/_local/faults")


@pytest.fixture
def start(world: World, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Starts four launchers, which end with the test."""
    started: list[LauncherProcess] = []
    yield lambda: started.append(
        LauncherProcess(world.config, tmp_path / "log", processes=LAUNCHERS)
    )
    for process in started:
        process.kill()
        assert "Traceback" not in process.said


def answers(world: World, *verbs: str) -> Counter[str]:
    """How such requests for pods were answered, as the API server counts them."""
    found: Counter[str] = Counter()
    for request, count in world.admin.get("/_local/stats").items():
        verb, resource, status = request.split()
        if verb in verbs and resource == "pods":
            found[status] += count
    return found


def launched(world: World, count: int) -> list[LaunchMessage]:
    messages = [world.message(f"t{n}") for n in range(count)]
    for start in range(0, count, 500):
        world.launch(*messages[start : start + 500])
    return messages


def test_all_launchers_together_keep_to_what_the_api_server_takes(
    world: World, start: Callable[[], None]
) -> None:
    world.fault({"rate_per_s": LIMIT}, verb="create", resource="pods")
    before = answers(world, "create")
    messages = launched(world, int(LIMIT * (SECONDS + 10)))
    start()
    poll("it begins", lambda: answers(world, "create")["201"] > before["201"], 60)
    began = time.monotonic()
    time.sleep(SECONDS)
    seen, took = answers(world, "create") - before, time.monotonic() - began
    by_launcher = Counter(
        world.redis.hget(world.keys.task(m.attempt.launch.digest), "launcher") for m in messages
    )
    by_launcher.pop(None, None)
    # What the API server takes at once, after its rest, is not counted.
    assert seen["201"] - LIMIT >= 0.9 * LIMIT * took, seen
    assert seen["429"] < 0.05 * sum(seen.values()), seen
    assert len(by_launcher) == LAUNCHERS
    assert min(by_launcher.values()) >= 0.1 * sum(by_launcher.values()), by_launcher
    assert not [e for e in world.events() if e.state is PodState.FAILED]


def test_removals_yield_to_launches_and_are_done_within_a_minute(
    world: World, start: Callable[[], None]
) -> None:
    world.fault({"rate_per_s": LIMIT}, resource="pods")  # of any kind, but for what the test asks
    before = answers(world, "create"), answers(world, "patch", "delete")
    count = 1000
    launched(world, count)
    start()
    asked: set[str] = set()

    def created() -> bool:
        """Whether all are; what is there is not needed any more."""
        for event in world.events():
            if event.uid is not None and event.uid not in asked:
                asked.add(event.uid)
                world.remove({"metadata": {"name": event.pod, "uid": event.uid}})
        return len(asked) == count

    poll("all are created", created, 120)
    creates = answers(world, "create") - before[0]
    removals = answers(world, "patch", "delete") - before[1]
    assert creates["201"] == count
    assert sum(removals.values()) <= 0.4 * sum(creates.values()), (creates, removals)
    poll("nothing is left to do", world.idle, 60)
    world.admin.delete("/_local/faults")
    assert world.pods() == []
    assert not [e for e in world.events() if e.state is PodState.FAILED]
