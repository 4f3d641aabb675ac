"""A revoked key has no launch left, however many it had, and nothing of it stays in Redis."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kbroker.event import PodState, Started
from kbroker.executor import KubernetesExecutor
from kbroker.message import LaunchRequest
from kbroker.task import Attempt
from tests.integration.scene import Scene, key, poll


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url, core__executor_lease=0.3)
    scene.lead()
    return scene


def launch(scene: Scene, executor: KubernetesExecutor, launch_id: str) -> Attempt:
    """A launch of the key that is on its queue."""
    executor.execute_async(key(), ["true"], launch_id=launch_id)
    executor.heartbeat()
    return next(m.attempt for m in scene.queued() if m.attempt.launch.launch_id == launch_id)


def queued(scene: Scene, attempt: Attempt) -> None:
    """It waits on its queue."""


def running(scene: Scene, attempt: Attempt) -> None:
    """Its pod runs."""
    scene.launched(attempt)


def failed_early(scene: Scene, attempt: Attempt) -> None:
    """Its first attempt never started: the next one waits in the executor's memory."""
    scene.take(attempt)
    scene.report(scene.pod(attempt, PodState.PENDING))
    scene.watched(scene.pod(attempt, PodState.FAILED, started=Started.NEVER))


@pytest.mark.parametrize("older", [queued, running, failed_early], ids=lambda x: x.__name__)
def test_older_launches_of_the_key_are_revoked_with_it(
    scene: Scene, older: Callable[[Scene, Attempt], None]
) -> None:
    executor = scene.executor()
    first = launch(scene, executor, "first")
    older(scene, first)
    executor.heartbeat()
    second = launch(scene, executor, "second")
    executor.get_event_buffer()
    assert executor.revoke(key())
    for _ in range(3):
        executor.heartbeat()
    assert [scene.record(a)["state"] for a in (first, second)] == ["withdrawn", "withdrawn"]
    assert scene.queued() == []
    assert len(scene.removals()) == (older is not queued)
    assert executor.get_event_buffer() == {}
    assert executor.running == set()
    assert executor.end()


def test_an_older_launch_is_revoked_where_the_newer_one_has_ended(scene: Scene) -> None:
    executor = scene.executor()
    first, second = launch(scene, executor, "first"), launch(scene, executor, "second")
    scene.launched(first)
    scene.launched(second)
    scene.watched(scene.pod(second, PodState.SUCCEEDED, exit_code=0))
    executor.heartbeat()
    assert not executor.revoke(key())  # its end is told: too late
    executor.heartbeat()
    assert scene.record(first)["state"] == "withdrawn"
    assert [state for state, _ in executor.get_event_buffer().values()] == ["success"]


def test_what_was_told_of_a_revoked_launch_is_deleted(scene: Scene) -> None:
    executor = scene.executor(core__reconcile_interval=0.05)
    attempt = launch(scene, executor, "launch")
    scene.launched(attempt)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0))
    results = scene.keys.results("exec-1")
    assert scene.redis.xlen(results) == 3
    executor.revoke(key())

    def deleted() -> bool:
        executor.heartbeat()
        return not scene.redis.xlen(results)

    poll("nobody will ask for it", deleted)


def test_what_was_told_of_a_launch_that_may_be_adopted_is_kept(scene: Scene) -> None:
    first = scene.executor()
    attempt = launch(scene, first, "launch")
    scene.launched(attempt)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0))
    results = scene.keys.results("exec-1")
    second = scene.executor(core__reconcile_interval=0.05)  # after a crash, with the same id
    for _ in range(10):
        second.heartbeat()
    assert scene.redis.xlen(results) == 3
    assert second.adopt([LaunchRequest(key(), ["true"], "launch")]) == []
    second.heartbeat()
    assert [state for state, _ in second.get_event_buffer().values()] == ["success"]
    second.heartbeat()
    assert scene.redis.xlen(results) == 0


def test_what_was_told_of_a_launch_that_another_has_adopted_is_deleted(scene: Scene) -> None:
    first = scene.executor()
    attempt = launch(scene, first, "launch")
    scene.launched(attempt)
    other = scene.executor("exec-2", core__executor_lease=5.0)
    request = LaunchRequest(key(), ["true"], "launch")
    poll("adopted", lambda: other.adopt([request]) == [])
    back = scene.executor("exec-1", core__reconcile_interval=0.05)
    assert back.adopt([request]) == [request]

    def deleted() -> bool:
        other.heartbeat()
        back.heartbeat()
        return not scene.redis.xlen(scene.keys.results("exec-1"))

    poll("it is not ours", deleted)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0))
    other.heartbeat()
    assert [state for state, _ in other.get_event_buffer().values()] == ["success"]
    assert back.get_event_buffer() == {}


def test_a_pod_whose_record_is_lost_goes_too(scene: Scene) -> None:
    executor = scene.executor("exec-1", core__executor_lease=60.0)
    attempt = launch(scene, executor, "launch")
    scene.launched(attempt)
    executor.heartbeat()
    # Redis loses everything. The watcher lists before the executor has noticed, and hears
    # nothing more of a pod that runs on.
    token = scene.redis.get(scene.keys.executor("exec-1"))
    scene.redis.flushall()
    scene.redis.set(scene.keys.executor("exec-1"), token)
    scene.lead(complete=False)
    runs = scene.pod(attempt, PodState.RUNNING, started=Started.YES)
    assert scene.watched(runs) == "unknown"
    assert executor.revoke(key())
    assert scene.record(attempt)["state"] == "withdrawn"
    assert [(r["pod"], r["uid"], r["removal"]) for r in scene.removals()] == [
        (runs.pod, runs.uid, "delete")
    ]
