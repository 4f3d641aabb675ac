"""A user cancels what an executor wants: it learns of it on every path, and launches nothing."""

from __future__ import annotations

import pytest

from kbroker.event import Cause, Outcome, PodState, Started
from kbroker.executor import KubernetesExecutor
from kbroker.message import LaunchRequest
from kbroker.redis_client import run
from kbroker.task import Attempt
from tests.integration.scene import Scene, failed, key, poll

BY = "cancelled by ann@laptop"


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url)
    scene.lead()
    return scene


def wanted(scene: Scene, executor: KubernetesExecutor) -> Attempt:
    executor.execute_async(key(), ["true"], launch_id="launch")
    executor.heartbeat()
    return scene.queued()[0].attempt


def cancel(scene: Scene, attempt: Attempt) -> str:
    (reply,) = run(scene.redis, [scene.records.cancel(attempt.launch.digest, BY)])
    return str(reply.outcome)


def end(executor: KubernetesExecutor) -> tuple[str, Outcome]:
    """The task's final state."""
    seen: list[tuple[str, Outcome]] = []

    def final() -> bool:
        executor.heartbeat()
        state = executor.get_event_buffer().get(key())
        if state is not None and isinstance(state[1], Outcome):
            seen.append((state[0], state[1]))
        return bool(seen)

    poll("it is final", final)
    return seen[0]


def assert_cancelled(scene: Scene, executor: KubernetesExecutor) -> None:
    state, outcome = end(executor)
    assert (state, outcome.cause, outcome.message) == ("failed", Cause.CANCELLED, BY)
    assert not executor.running
    assert not executor.queued_tasks
    poll("its end is noted", lambda: [executor.heartbeat(), not len(executor._launches)][1])
    assert scene.queued() == []
    assert executor.end()
    assert not scene.redis.exists(scene.keys.results(executor.executor_id))


def waiting(scene: Scene, attempt: Attempt) -> None:
    """It is on its queue."""


def pending(scene: Scene, attempt: Attempt) -> None:
    scene.take(attempt)
    scene.report(scene.pod(attempt, PodState.PENDING, started=Started.NEVER))


def running(scene: Scene, attempt: Attempt) -> None:
    scene.launched(attempt)


def evicted(scene: Scene, attempt: Attempt) -> None:
    """It would be launched again."""
    scene.take(attempt)
    scene.report(failed(scene, attempt, Cause.EVICTED, Started.NEVER))


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("stage", [waiting, pending, running, evicted])
def test_its_living_executor_is_told(scene: Scene, stage, noticed: bool) -> None:
    executor = scene.executor(kubernetes__create_window=60.0)
    attempt = wanted(scene, executor)
    stage(scene, attempt)
    if noticed:
        executor.heartbeat()
    assert cancel(scene, attempt) == "ok"
    assert_cancelled(scene, executor)
    removed = {removal["uid"] for removal in scene.removals()}
    assert removed == (set() if stage is waiting else {f"uid-{attempt.digest[:8]}"})


def test_the_pods_own_end_comes_too_late(scene: Scene) -> None:
    executor = scene.executor()
    attempt = wanted(scene, executor)
    scene.launched(attempt)
    cancel(scene, attempt)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, started=Started.YES), gone=True)
    assert_cancelled(scene, executor)


def test_a_success_stays_a_success(scene: Scene) -> None:
    executor = scene.executor()
    attempt = wanted(scene, executor)
    scene.launched(attempt)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, started=Started.YES))
    assert cancel(scene, attempt) == "final"
    assert end(executor)[0] == "success"
    executor.end()


def test_told_by_the_record_where_the_event_is_lost(scene: Scene) -> None:
    executor = scene.executor()
    attempt = wanted(scene, executor)
    scene.launched(attempt)
    executor.heartbeat()
    cancel(scene, attempt)
    scene.redis.delete(scene.keys.results(executor.executor_id))
    assert_cancelled(scene, executor)


@pytest.mark.parametrize("stage", [waiting, pending, running, evicted])
def test_whoever_adopts_it_is_told(scene: Scene, stage) -> None:
    dead = scene.executor("dead")
    attempt = wanted(scene, dead)
    stage(scene, attempt)
    scene.redis.delete(scene.keys.executor("dead"))
    assert cancel(scene, attempt) == "ok"
    heir = scene.executor("heir")
    assert heir.adopt([LaunchRequest(key(), ["true"], "launch")]) == []
    assert_cancelled(scene, heir)


def test_an_executor_that_knows_a_later_attempt_is_told(scene: Scene) -> None:
    """Redis fell back to an older state, then the task was cancelled."""
    executor = scene.executor()
    attempt = wanted(scene, executor)
    before = scene.redis.hgetall(scene.keys.task(attempt.launch.digest))
    scene.take(attempt)
    scene.report(failed(scene, attempt, Cause.EVICTED, Started.NEVER))
    poll("attempt 2", lambda: [executor.heartbeat(), scene.queued()][1])
    scene.redis.flushdb()
    scene.redis.hset(scene.keys.task(attempt.launch.digest), mapping=before)
    assert cancel(scene, attempt) == "ok"
    assert_cancelled(scene, executor)
