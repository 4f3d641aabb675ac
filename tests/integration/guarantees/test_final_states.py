"""A launch's end enters the event buffer once in an executor's life, however often it is told."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from kbroker.event import Cause, Outcome, PodEvent, PodState, Started
from kbroker.executor import KubernetesExecutor
from kbroker.message import LaunchRequest
from kbroker.redis_client import run
from kbroker.task import Attempt
from tests.integration.scene import PLACE, Scene, failed, key, poll

RESULTS = "exec-1"


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url, core__executor_lease=0.3)
    scene.lead()
    return scene


class Told:
    """An executor, and every final state that it has handed out."""

    def __init__(self, executor: KubernetesExecutor) -> None:
        self.executor = executor
        self.finals: list[tuple[str, str]] = []

    def take(self, *, keep_pods: bool = False) -> None:
        """Take the event buffer."""
        for state, info in self.executor.get_event_buffer(keep_pods=keep_pods).values():
            if isinstance(info, Outcome):
                self.finals.append((state, info.launch_id))

    def beat(self, seconds: float = 0.0) -> None:
        """A turn of the scheduler's loop, or many."""
        deadline = time.monotonic() + seconds
        self.executor.heartbeat()
        self.take()
        while time.monotonic() < deadline:
            self.executor.heartbeat()
            self.take()
            time.sleep(0.02)


def launched(scene: Scene, told: Told) -> Attempt:
    """Its pod runs, and the executor knows."""
    told.executor.execute_async(key(), ["true"], launch_id="launch")
    told.beat()
    attempt = scene.queued()[0].attempt
    scene.launched(attempt)
    told.beat()
    return attempt


# How an end is told again.


def told_twice(scene: Scene, told: Told, end: PodEvent) -> None:
    """The same entry stands in the stream twice."""
    scene.redis.xadd(scene.keys.results(RESULTS), {"event": end.encode()})


def told_by_a_later_version(scene: Scene, told: Told, end: PodEvent) -> None:
    """Something else about the finished pod has changed, such as its labels."""
    scene.watched(scene.pod(end.attempt, end.state, exit_code=end.exit_code, cause=end.cause))


def gone(scene: Scene, told: Told, end: PodEvent) -> None:
    """The finished pod is deleted."""
    scene.watched(scene.pod(end.attempt, end.state, exit_code=end.exit_code), gone=True)


def listed_again(scene: Scene, told: Told, end: PodEvent) -> None:
    """A watcher begins with a list."""
    terms = {"token": scene.watch_lease.token, "leader": "scene"}
    run(scene.redis, [scene.records.relisting(PLACE, new_generation=False, **terms)])
    scene.watched(end)
    run(scene.redis, [scene.records.synced(PLACE, scene.version, **terms)])


def listed_after_versions_fell(scene: Scene, told: Told, end: PodEvent) -> None:
    """The API server was restored from a backup."""
    terms = {"token": scene.watch_lease.token, "leader": "scene"}
    run(scene.redis, [scene.records.relisting(PLACE, new_generation=True, **terms)])
    scene.watched(end)
    run(scene.redis, [scene.records.synced(PLACE, scene.version, **terms)])


def read_again(scene: Scene, told: Told, end: PodEvent) -> None:
    """The stream is read from its beginning."""
    told.executor.scheduler.rewind()


def looked_up(scene: Scene, told: Told, end: PodEvent) -> None:
    """Reconciliation compares it with its record."""
    told.executor.clear_not_launched_queued_tasks()
    told.executor._reconciliation.all_soon()


def flushed(scene: Scene, told: Told, end: PodEvent) -> None:
    """Redis loses everything, and the watcher lists."""
    scene.redis.flushall()
    scene.lead(complete=False)
    scene.watched(end)
    terms = {"token": scene.watch_lease.token, "leader": "scene"}
    run(scene.redis, [scene.records.synced(PLACE, scene.version, **terms)])


AGAIN = {
    "in one Redis": [
        told_twice,
        told_by_a_later_version,
        listed_again,
        listed_after_versions_fell,
        read_again,
        looked_up,
        gone,
    ],
    "after Redis was lost": [flushed, read_again],
}


@pytest.mark.parametrize("when", ["unread", "in the buffer", "kept", "handed out", "let go"])
@pytest.mark.parametrize("ways", AGAIN.values(), ids=AGAIN)
def test_once_in_one_life(
    scene: Scene, ways: list[Callable[[Scene, Told, PodEvent], None]], when: str
) -> None:
    told = Told(scene.executor(core__reconcile_interval=0.05))
    attempt = launched(scene, told)
    end = scene.pod(attempt, PodState.SUCCEEDED, started=Started.YES, exit_code=0)
    scene.watched(end)
    if when != "unread":
        told.executor.heartbeat()
    if when in ("kept", "handed out", "let go"):
        told.take(keep_pods=when == "kept")
    if when == "let go":
        told.executor.heartbeat()
    for way in ways:
        way(scene, told, end)
        if when != "unread":
            told.executor.heartbeat()
    told.beat(0.15)
    told.executor.let_go(key())
    told.beat()
    assert told.finals == [("success", "launch")]
    assert told.executor.running == set()
    assert scene.queued() == []
    assert scene.redis.xlen(scene.keys.results(RESULTS)) == 0
    told.executor.end()


@pytest.mark.parametrize("when", ["unread", "in the buffer", "handed out"])
@pytest.mark.parametrize(("executor_id", "flush"), [("exec-1", False), ("exec-2", True)])
def test_told_again_after_a_crash_with_the_same_launch_id(
    scene: Scene, when: str, executor_id: str, flush: bool
) -> None:
    first = Told(scene.executor(core__reconcile_interval=0.05))
    attempt = launched(scene, first)
    end = failed(scene, attempt, Cause.ERROR, Started.YES)
    scene.watched(end)
    if when != "unread":
        first.executor.heartbeat()
    if when == "handed out":
        first.take()
    # Killed here: whatever was handed out may not have been written down.
    if flush:
        flushed(scene, first, end)
    second = Told(scene.executor(executor_id, core__reconcile_interval=0.05))
    request = LaunchRequest(key(), ["true"], "launch")
    poll("adopted", lambda: second.executor.adopt([request]) == [])
    second.beat(0.1)
    assert second.finals == [("failed", "launch")]
    assert [r["uid"] for r in scene.removals()] == [end.uid]
    assert scene.queued() == []


def test_a_launch_id_that_has_ended_is_told_again_and_not_run_again(scene: Scene) -> None:
    told = Told(scene.executor())
    scene.watched(scene.pod(launched(scene, told), PodState.SUCCEEDED, exit_code=0))
    told.beat(0.05)
    assert told.executor.running == set()
    told.executor.execute_async(key(), ["true"], launch_id="launch")
    poll("told", lambda: told.beat() or len(told.finals) == 2)
    assert told.finals == [("success", "launch")] * 2
    assert scene.queued() == []
    assert len(scene.removals()) == 1
