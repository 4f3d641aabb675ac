"""The executor against a real Redis; launchers and watcher are played by `Scene`."""

from __future__ import annotations

import threading
import time

import pytest

from kbroker import naming
from kbroker.errors import ExecutorConfigError, LeaseLostError, TaskError
from kbroker.event import Cause, Outcome, PodState, Started
from kbroker.executor import KubernetesExecutor
from kbroker.kube_config import KubeConfig
from kbroker.message import LaunchRequest
from kbroker.redis_client import run
from tests.integration.scene import PLACE, Scene, failed, key, poll


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url)
    scene.lead()
    return scene


def publish(executor: KubernetesExecutor, scene: Scene, task: str = "task", **options):
    """Execute one task and publish it; its attempt."""
    executor.execute_async(key(task), ["true"], **options)
    executor.heartbeat()
    return next(m.attempt for m in scene.queued() if m.attempt.launch.key == key(task))


def test_a_task_from_wish_to_removed_pod(scene: Scene) -> None:
    executor = scene.executor()
    launch_id = executor.execute_async(
        key(), ["echo", "hi"], executor_config={"KubernetesExecutor": {"image": "busybox:1"}}
    )
    assert set(executor.queued_tasks) == {key()}
    assert scene.queued() == []

    executor.heartbeat()
    assert executor.get_event_buffer() == {key(): ("queued", launch_id)}
    assert executor.running == {key()}
    assert executor.waiting(key()) == "waits for a launcher"
    message = scene.queued()[0]
    assert message.command == ("echo", "hi")
    assert message.executor_config == {"image": "busybox:1"}
    assert message.attempt.launch.launch_id == launch_id

    attempt = message.attempt
    scene.take(attempt)
    scene.report(scene.pod(attempt, PodState.PENDING, message="its image is pulled"))
    executor.heartbeat()
    assert executor.waiting(key()) == "its image is pulled"
    scene.watched(scene.pod(attempt, PodState.RUNNING, started=Started.YES))
    executor.heartbeat()
    assert executor.get_event_buffer() == {key(): ("running", launch_id)}
    assert executor.waiting(key()) is None

    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0, started=Started.YES))
    executor.heartbeat()
    executor.heartbeat()
    assert executor.running == set()
    # Until the scheduler has the result, nothing of it may go.
    assert scene.removals() == []
    assert scene.redis.xlen(scene.keys.results("exec-1")) == 1
    assert scene.record(attempt)["state"] == "wanted"

    (state, outcome) = executor.get_event_buffer()[key()]
    assert state == "success"
    assert isinstance(outcome, Outcome)
    assert (outcome.attempts, outcome.exit_code, outcome.cause) == (1, 0, None)
    assert outcome.started_at is not None
    executor.sync()
    assert [(r["uid"], r["removal"]) for r in scene.removals()] == [(outcome.uid, "delete")]
    assert scene.record(attempt)["state"] == "final"
    assert scene.redis.pttl(scene.keys.task(attempt.launch.digest)) > 0
    assert scene.redis.xlen(scene.keys.results("exec-1")) == 0
    executor.end()
    assert not scene.redis.exists(scene.keys.results("exec-1"), scene.keys.executor("exec-1"))


def test_removal_is_asked_for_once_and_not_before_the_name_is_free(scene: Scene) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    granted = scene.take(attempt)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0))
    executor.heartbeat()
    executor.get_event_buffer()
    for _ in range(3):
        executor.heartbeat()
    removals = scene.removals()
    assert len(removals) == 1
    assert removals[0]["not_before"] == granted.create_before


@pytest.mark.parametrize(("lost", "asked"), [("the lease", 1), ("everything about it", 2)])
def test_what_is_asked_for_again_after_the_lease_was_missing(
    scene: Scene, lost: str, asked: int
) -> None:
    """It may have lapsed, or Redis may have lost the request: the record tells."""
    executor = scene.executor(kubernetes__create_window=30.0)
    attempt = publish(executor, scene)
    scene.launched(attempt)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0))
    executor.heartbeat()
    executor.get_event_buffer()
    executor.heartbeat()
    assert len(scene.removals()) == 1
    lease = scene.keys.executor(executor.executor_id)
    scene.redis.delete(lease)
    if lost != "the lease":
        scene.redis.delete(scene.keys.task(attempt.launch.digest))
    poll("it has the lease again", lambda: (executor.heartbeat(), scene.redis.exists(lease))[1])
    for _ in range(3):
        time.sleep(executor.config.core.reconcile_interval)  # a round of reconciliation
        executor.heartbeat()
    assert len(scene.removals()) == asked


@pytest.mark.parametrize(
    ("delete", "on_failure", "state", "asked"),
    [
        (True, True, PodState.SUCCEEDED, "delete"),
        (True, True, PodState.FAILED, "delete"),
        (True, False, PodState.SUCCEEDED, "delete"),
        (True, False, PodState.FAILED, "release"),
        (False, True, PodState.SUCCEEDED, "release"),
        (False, True, PodState.FAILED, "release"),
    ],
)
def test_which_finished_pods_are_kept(
    scene: Scene, delete: bool, on_failure: bool, state: PodState, asked: str
) -> None:
    executor = scene.executor(
        kubernetes__delete_worker_pods=delete, kubernetes__delete_worker_pods_on_failure=on_failure
    )
    attempt = publish(executor, scene)
    scene.launched(attempt)
    scene.watched(scene.pod(attempt, state, started=Started.YES, cause=Cause.ERROR, exit_code=1))
    executor.heartbeat()
    executor.get_event_buffer()
    executor.heartbeat()
    assert [removal["removal"] for removal in scene.removals()] == [asked]
    assert scene.record(attempt)["state"] == "final"


def test_parallelism_bounds_what_is_published(scene: Scene) -> None:
    executor = scene.executor(core__parallelism=2)
    for n in range(5):
        executor.execute_async(key(f"t{n}"), ["true"])
    executor.heartbeat()
    executor.heartbeat()
    assert len(scene.queued()) == 2
    assert len(executor.queued_tasks) == 3
    assert executor.waiting(key("t4")) == "all 2 slots are taken"
    attempt = scene.queued()[0].attempt
    scene.launched(attempt)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0))
    executor.heartbeat()
    executor.heartbeat()
    assert len(executor.running) == 2
    assert [m.attempt.launch.key.task_id for m in scene.queued()] == ["t1", "t2"]


def test_queue_names_a_priority(scene: Scene) -> None:
    executor = scene.executor()
    executor.execute_async(key("a"), ["true"], queue="high")
    executor.execute_async(key("b"), ["true"], queue="an Airflow queue")
    executor.heartbeat()
    assert [m.attempt.launch.key.task_id for m in scene.queued("high")] == ["a"]
    assert [m.attempt.launch.key.task_id for m in scene.queued("normal")] == ["b"]


def test_failure_before_the_start_is_relaunched_up_to_the_limit(scene: Scene) -> None:
    executor = scene.executor(core__relaunch_limit=2)
    attempt = publish(executor, scene)
    for number in (1, 2, 3):
        assert attempt.number == number
        scene.take(attempt)
        scene.report(scene.pod(attempt, PodState.PENDING))
        event = failed(scene, attempt, Cause.IMAGE_PULL, Started.NEVER)
        scene.watched(event)
        if number == 3:
            break
        # The next attempt waits until no request of this one can create a pod any more.
        executor.heartbeat()
        assert scene.queued() == []
        assert executor.running == {key()}

        def published() -> bool:
            executor.heartbeat()
            return bool(scene.queued())

        poll("the next attempt", published)
        assert event.uid in {r["uid"] for r in scene.removals()}
        attempt = scene.queued()[0].attempt
    executor.heartbeat()
    state, outcome = executor.get_event_buffer()[key()]
    assert state == "failed"
    assert isinstance(outcome, Outcome)
    assert (outcome.attempts, outcome.cause) == (3, Cause.IMAGE_PULL)
    assert str(outcome) == "image_pull after 3 attempts: it was image_pull"


def test_an_attempt_that_redis_has_forgotten_is_published_again(scene: Scene) -> None:
    executor = scene.executor()
    first = publish(executor, scene)
    scene.take(first)
    scene.report(scene.pod(first, PodState.PENDING))
    scene.watched(failed(scene, first, Cause.EVICTED, Started.NEVER))

    def published() -> bool:
        executor.heartbeat()
        return bool(scene.queued())

    poll("the second attempt", published)
    second = scene.queued()[0].attempt
    assert second.number == 2
    # A replica that was behind takes over: it knows nothing of the second attempt.
    scene.drop_entries(second)
    scene.redis.hset(scene.keys.task(first.launch.digest), "attempt", 1)
    poll("the second attempt again", published)
    assert scene.queued()[0].attempt == second


@pytest.mark.parametrize("started", [Started.YES, Started.UNKNOWN])
def test_failure_without_proof_is_never_relaunched(scene: Scene, started: Started) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    scene.launched(attempt)
    scene.watched(failed(scene, attempt, Cause.NODE_LOST, started))
    executor.heartbeat()
    state, outcome = executor.get_event_buffer()[key()]
    assert (state, outcome.cause) == ("failed", Cause.NODE_LOST)
    time.sleep(scene.config.kubernetes.create_window)
    executor.heartbeat()
    assert scene.queued() == []


def test_refused_by_the_api_server_is_final(scene: Scene) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    scene.take(attempt)
    scene.report(
        scene.pod(
            attempt,
            PodState.FAILED,
            uid=None,
            resource_version=0,
            started=Started.NEVER,
            cause=Cause.ADMISSION,
            message="no",
        )
    )
    executor.heartbeat()
    state, outcome = executor.get_event_buffer()[key()]
    assert (state, outcome.cause, outcome.message) == ("failed", Cause.ADMISSION, "no")
    executor.heartbeat()
    assert scene.removals() == []


def test_only_the_newest_launch_of_a_key_speaks_for_it(scene: Scene) -> None:
    executor = scene.executor()
    first = publish(executor, scene, launch_id="first")
    scene.launched(first)
    executor.heartbeat()
    executor.get_event_buffer()
    executor.execute_async(key(), ["true"], launch_id="second")
    executor.heartbeat()
    assert executor.get_event_buffer() == {key(): ("queued", "second")}
    second = scene.queued()[0].attempt

    scene.watched(scene.pod(first, PodState.SUCCEEDED, exit_code=0))
    executor.heartbeat()
    executor.heartbeat()
    assert executor.get_event_buffer() == {}
    assert executor.running == {key()}
    assert len(scene.removals()) == 1  # the older pod goes all the same

    scene.launched(second)
    scene.watched(failed(scene, second, Cause.ERROR, Started.YES))
    executor.heartbeat()
    state, outcome = executor.get_event_buffer()[key()]
    assert (state, outcome.launch_id) == ("failed", "second")


def test_same_launch_id_twice_is_one_launch(scene: Scene) -> None:
    executor = scene.executor()
    publish(executor, scene, launch_id="same")
    executor.execute_async(key(), ["true"], launch_id="same")
    executor.heartbeat()
    assert len(scene.queued()) == 1


def test_revoke_in_memory_on_the_queue_and_running(scene: Scene) -> None:
    executor = scene.executor()
    executor.execute_async(key("buffered"), ["true"])
    assert executor.revoke(key("buffered"))
    executor.heartbeat()
    assert scene.queued() == []

    queued = publish(executor, scene, "queued")
    assert executor.revoke(key("queued"))
    assert scene.queued() == []
    assert scene.record(queued)["state"] == "withdrawn"

    running = publish(executor, scene, "running")
    scene.launched(running)
    executor.heartbeat()
    assert executor.revoke(key("running"), "marked failed by hand")
    assert [r["reason"] for r in scene.removals()] == ["marked failed by hand"]
    executor.heartbeat()
    assert executor.running == set()
    assert executor.get_event_buffer() == {}
    assert not executor.revoke(key("running"))


def test_revoke_between_grant_and_create_removes_the_late_pod(scene: Scene) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    granted = scene.take(attempt)
    executor.revoke(key())
    assert scene.report(scene.pod(attempt, PodState.PENDING)) == "unwanted"
    assert scene.removals()[0]["not_before"] == granted.create_before


def test_lost_message_is_published_again(scene: Scene) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    scene.drop_entries(attempt)

    def again() -> bool:
        executor.heartbeat()
        return bool(scene.queued())

    poll("published again", again)
    assert scene.queued()[0].attempt == attempt


def test_waiting_message_is_not_published_again(scene: Scene) -> None:
    executor = scene.executor()
    publish(executor, scene)
    for _ in range(5):
        time.sleep(scene.config.core.reconcile_interval)
        executor.heartbeat()
    assert len(scene.queued()) == 1
    assert executor.clear_not_launched_queued_tasks() == 0


def test_clear_not_launched_looks_at_once(scene: Scene) -> None:
    executor = scene.executor(core__reconcile_interval=1000.0)
    attempt = publish(executor, scene)
    scene.drop_entries(attempt)
    assert executor.clear_not_launched_queued_tasks() == 1
    executor.heartbeat()
    assert len(scene.queued()) == 1


def test_pod_that_vanished_unseen_is_reported_so(scene: Scene) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    scene.launched(attempt)
    executor.heartbeat()
    time.sleep(scene.config.kubernetes.create_window)
    # The picture loses the pod although no event said how it ended.
    scene.redis.hdel(scene.keys.pods(*PLACE), scene.record(attempt)["pod"])
    scene.bookmark()

    def over() -> bool:
        executor.heartbeat()
        return any(s == "failed" for s, _ in executor.event_buffer.values())

    poll("the failure", over)
    outcome = executor.get_event_buffer()[key()][1]
    assert outcome.cause is Cause.VANISHED
    assert "nobody saw how it ended" in outcome.message


def test_absence_proves_nothing_while_the_picture_is_incomplete(scene: Scene) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    scene.launched(attempt)
    scene.redis.hdel(scene.keys.pods(*PLACE), scene.record(attempt)["pod"])
    scene.version += 5
    scene.lead(complete=False)
    time.sleep(scene.config.kubernetes.create_window)
    for _ in range(5):
        time.sleep(scene.config.core.reconcile_interval)
        executor.heartbeat()
    assert executor.running == {key()}


def test_dead_message_fails_the_task_with_its_reason(scene: Scene) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    scene.take(attempt)
    waiting = scene.pod(
        attempt, PodState.WAITING, uid=None, resource_version=0, cause=Cause.DEAD, message="poison"
    )
    queue = scene.keys.launch_queue("default", "normal")
    run(scene.redis, [scene.records.bury(queue, "", "poison", b"{}", waiting)])

    def over() -> bool:
        scene.bookmark()
        executor.heartbeat()
        return any(s == "failed" for s, _ in executor.event_buffer.values())

    poll("the failure", over)
    outcome = executor.get_event_buffer()[key()][1]
    assert (outcome.cause, outcome.message) == (Cause.DEAD, "poison")


def test_restart_with_the_same_id_adopts_and_hears_what_it_missed(scene: Scene) -> None:
    first = scene.executor()
    attempt = publish(first, scene, launch_id="launch")
    scene.launched(attempt)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0))
    # Killed here: nothing was read, nothing released.
    second = scene.executor()
    request = LaunchRequest(key(), ["true"], "launch")
    assert second.adopt([request]) == []
    second.heartbeat()
    state, outcome = second.get_event_buffer()[key()]
    assert (state, outcome.exit_code) == ("success", 0)
    second.heartbeat()
    assert scene.redis.xlen(scene.keys.results("exec-1")) == 0
    assert len(scene.removals()) == 1


def test_another_executor_adopts_only_from_the_dead(scene: Scene) -> None:
    first = scene.executor("exec-1")
    attempt = publish(first, scene, launch_id="launch")
    scene.launched(attempt)
    second = scene.executor("exec-2")
    request = LaunchRequest(key(), ["true"], "launch")
    assert second.adopt([request]) == [request]
    assert second.running == set()
    poll("the lease ends", lambda: not scene.redis.exists(scene.keys.executor("exec-1")))
    assert second.adopt([request]) == []
    assert second.running == {key()}
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0))
    second.heartbeat()
    assert second.get_event_buffer()[key()][0] == "success"


def test_adopting_what_was_never_published_publishes_it(scene: Scene) -> None:
    scene.bookmark()
    executor = scene.executor()
    assert executor.adopt([LaunchRequest(key(), ["true"], "launch")]) == []

    def published() -> bool:
        scene.bookmark()
        executor.heartbeat()
        return bool(scene.queued())

    poll("published", published)
    assert executor.running == {key()}


def test_adopted_after_a_flush_takes_the_attempt_from_the_picture(scene: Scene) -> None:
    first = scene.executor(core__executor_lease=0.5)
    attempt = publish(first, scene, launch_id="launch")
    second_attempt = attempt.next()
    scene.redis.flushall()
    scene.lead(complete=False)
    executor = scene.executor("exec-2")
    executor.adopt([LaunchRequest(key(), ["true"], "launch")])
    executor.heartbeat()
    assert scene.queued() == []  # the relist is not complete: nothing is proven yet
    scene.watched(scene.pod(second_attempt, PodState.RUNNING, started=Started.YES))
    terms = {"token": scene.watch_lease.token, "leader": "scene"}
    run(scene.redis, [scene.records.synced(PLACE, scene.version, **terms)])

    def running() -> bool:
        executor.heartbeat()
        return executor.event_buffer.get(key(), ("",))[0] == "running"

    poll("the running pod is found", running)
    assert scene.queued() == []
    assert scene.record(second_attempt)["attempt"] == "2"


def test_flushall_in_the_middle_loses_and_repeats_nothing(scene: Scene) -> None:
    executor = scene.executor()
    attempts = {t: publish(executor, scene, t) for t in ("queued", "running")}
    scene.launched(attempts["running"])
    executor.heartbeat()
    scene.redis.flushall()
    scene.lead(complete=False)

    def repaired() -> bool:
        executor.heartbeat()
        return bool(scene.queued()) and bool(scene.record(attempts["running"]))

    poll("records and messages are back", repaired)
    assert [m.attempt for m in scene.queued()] == [attempts["queued"]]
    record = scene.record(attempts["running"])
    assert (record["state"], record["owner"]) == ("wanted", "exec-1")
    scene.watched(scene.pod(attempts["running"], PodState.SUCCEEDED, exit_code=0))
    executor.heartbeat()
    assert executor.get_event_buffer()[key("running")][0] == "success"


def test_final_state_enters_the_buffer_once_per_life(scene: Scene) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    scene.launched(attempt)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0))
    executor.heartbeat()
    assert executor.get_event_buffer()[key()][0] == "success"
    executor.scheduler.rewind()  # everything in the stream is delivered again
    executor.heartbeat()
    executor.heartbeat()
    assert executor.get_event_buffer() == {}


def test_redis_away_is_no_exception_and_no_delay(unused_port: int) -> None:
    config = KubeConfig.from_values(**{"broker.url": f"redis://127.0.0.1:{unused_port}/0"})
    executor = KubernetesExecutor(config)
    executor.execute_async(key(), ["true"])
    for _ in range(3):
        before = time.monotonic()
        executor.heartbeat()
        assert time.monotonic() - before < 1.0
    assert set(executor.queued_tasks) == {key()}
    assert executor.waiting(key()) == "Redis does not answer"
    assert executor.revoke(key())


def test_executor_id_in_use_is_refused_after_one_lease(scene: Scene) -> None:
    first = scene.executor("exec-1", core__executor_lease=0.9)
    other = KubernetesExecutor(first.config)

    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(0.1):
            first.heartbeat()

    beat = threading.Thread(target=keep)
    beat.start()
    try:
        with pytest.raises(LeaseLostError, match="in use by another process"):
            other.start()
    finally:
        stop.set()
        beat.join()


def test_executor_whose_lease_was_taken_stops(scene: Scene) -> None:
    executor = scene.executor(core__executor_lease=0.3)
    scene.redis.set(scene.keys.executor("exec-1"), "another token")
    with pytest.raises(LeaseLostError):
        poll("it notices", executor.heartbeat)


def test_task_that_another_executor_owns_is_dropped_silently(scene: Scene) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    scene.redis.set(scene.keys.executor("exec-2"), "token")
    scene.redis.hset(scene.keys.task(attempt.launch.digest), "owner", "exec-2")
    executor.get_event_buffer()

    def dropped() -> bool:
        executor.heartbeat()
        return not executor.running

    poll("dropped", dropped)
    assert executor.get_event_buffer() == {}


def test_bad_requests_are_refused_at_the_door(scene: Scene) -> None:
    executor = scene.executor()
    with pytest.raises(TaskError, match="command must be a non-empty list of strings"):
        executor.execute_async(key(), [])
    with pytest.raises(TaskError, match="key must be a TaskKey"):
        executor.execute_async("dag.task", ["true"])  # type: ignore[arg-type]
    with pytest.raises(ExecutorConfigError, match="imagee"):
        executor.execute_async(key(), ["true"], executor_config={"imagee": "x"})
    assert executor.queued_tasks == {}


def test_terminate_withdraws_everything(scene: Scene) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    scene.launched(attempt)
    executor.heartbeat()
    executor.terminate()
    assert scene.record(attempt)["state"] == "withdrawn"
    assert len(scene.removals()) == 1
    assert not scene.redis.exists(scene.keys.executor("exec-1"))


def test_the_scheduler_side_knows_labels_and_the_watch(scene: Scene) -> None:
    executor = scene.executor()
    attempt = publish(executor, scene)
    scheduler = executor.scheduler
    labels = naming.labels_for(attempt, "whoever")
    assert scheduler._labels_to_key(labels) == key()
    assert scheduler._labels_to_key({**labels, "dag_id": "other"}) is None
    scene.bookmark()
    health = scheduler._health_check_kube_watcher()
    assert (health.healthy, health.leader) == (True, "scene")
    assert scheduler._health_check_kube_watcher("default", "elsewhere").silent_for is None
