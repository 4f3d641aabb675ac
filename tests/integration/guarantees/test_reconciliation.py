"""What an executor wants against what Redis and the picture of pods say: never a second run."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from kbroker.event import PodState, Started
from kbroker.executor import KubernetesExecutor
from kbroker.message import LaunchRequest
from kbroker.redis_client import run
from kbroker.task import Attempt, Launch
from tests.integration.scene import PLACE, Scene, key, poll

WINDOW = 0.3
REQUEST = LaunchRequest(key(), ["true"], "launch")


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(
        redis_url,
        core__executor_lease=0.3,
        core__reconcile_interval=0.05,
        kubernetes__create_window=WINDOW,
    )
    scene.lead()
    return scene


def running(scene: Scene, executor: KubernetesExecutor) -> Attempt:
    """The task runs."""
    executor.execute_async(key(), REQUEST.command, launch_id="launch")
    executor.heartbeat()
    attempt = scene.queued()[0].attempt
    scene.launched(attempt)
    executor.heartbeat()
    executor.get_event_buffer()
    return attempt


def beat(executor: KubernetesExecutor, seconds: float) -> None:
    """Many turns of the scheduler's loop."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        executor.heartbeat()
        time.sleep(0.01)


@pytest.mark.parametrize("lost", ["the event", "the stream"])
def test_an_end_that_the_stream_has_lost_is_read_from_the_record(scene: Scene, lost: str) -> None:
    executor = scene.executor()
    attempt = running(scene, executor)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, started=Started.YES, exit_code=0))
    results = scene.keys.results("exec-1")
    if lost == "the stream":
        scene.redis.delete(results)
    else:
        scene.redis.xdel(results, scene.redis.xrevrange(results, count=1)[0][0])
    poll("told", lambda: executor.heartbeat() or executor.event_buffer)
    ((state, outcome),) = executor.get_event_buffer().values()
    assert (state, outcome.launch_id) == ("success", "launch")
    executor.heartbeat()
    assert len(scene.removals()) == 1


# What Redis may look like after a FLUSHALL while a task runs; none of it says "no pod".


def no_watcher(scene: Scene, attempt: Attempt) -> None:
    """Nobody has led since."""


def a_list_begins(scene: Scene, attempt: Attempt) -> None:
    """A watcher asks for the first page."""
    scene.lead(complete=False)


def half_a_list(scene: Scene, attempt: Attempt) -> None:
    """A page with other pods has come."""
    scene.lead(complete=False)
    other = Launch("kbroker", key("other"), "launch").attempt(1)
    scene.watched(scene.pod(other, PodState.RUNNING, started=Started.YES))


def a_bookmark_during_a_list(scene: Scene, attempt: Attempt) -> None:
    """Progress alone completes nothing."""
    scene.lead(complete=False)
    scene.bookmark()


NOT_COMPLETE = [no_watcher, a_list_begins, half_a_list, a_bookmark_during_a_list]


@pytest.mark.parametrize(
    ("redis", "restarted"),
    [*((redis, True) for redis in NOT_COMPLETE), (a_list_begins, False)],
    ids=lambda value: getattr(value, "__name__", f"restarted-{value}"),
)
def test_an_incomplete_picture_is_not_no_pod(
    scene: Scene, redis: Callable[[Scene, Attempt], None], restarted: bool
) -> None:
    executor = scene.executor()
    attempt = running(scene, executor)
    scene.redis.flushall()
    redis(scene, attempt)
    if restarted:
        executor = scene.executor("exec-2")
        assert executor.adopt([REQUEST]) == []
    beat(executor, 1.3 * WINDOW)
    assert scene.queued() == []
    assert scene.removals() == []
    assert executor.running == {key()}
    assert [state for state, _ in executor.get_event_buffer().values()] == []
    # The list is complete at last, and the pod was there all the time.
    if redis is no_watcher:
        scene.lead(complete=False)
    scene.watched(scene.pod(attempt, PodState.RUNNING, started=Started.YES))
    terms = {"token": scene.watch_lease.token, "leader": "scene"}
    run(scene.redis, [scene.records.synced(PLACE, scene.version, **terms)])
    poll("known", lambda: executor.heartbeat() or scene.record(attempt))
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, started=Started.YES, exit_code=0))
    poll("told", lambda: executor.heartbeat() or not executor.running)
    assert [state for state, _ in executor.get_event_buffer().values()] == ["success"]
    assert scene.queued() == []


def test_a_complete_picture_without_its_pod_is_believed_only_after_a_window(scene: Scene) -> None:
    running(scene, scene.executor())
    scene.redis.flushall()
    listed_at = time.monotonic()
    scene.lead()  # the pod is not in it: a request of the lost grant may be under way
    executor = scene.executor("exec-2")
    assert executor.adopt([REQUEST]) == []
    poll("published", lambda: scene.bookmark() or executor.heartbeat() or scene.queued())
    assert time.monotonic() - listed_at >= WINDOW
