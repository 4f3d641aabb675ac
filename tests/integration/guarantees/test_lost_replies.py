"""A script ran, and the connection broke before its reply came: every caller asks again."""

from __future__ import annotations

import collections
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kbroker.departures import ASK_AGAIN
from kbroker.event import Cause, PodState, Started
from kbroker.executor import KubernetesExecutor
from kbroker.kube_config import KubeConfig
from kbroker.message import LaunchMessage, LaunchRequest
from kbroker.redis_client import run
from kbroker.soak.proxy import TcpProxy
from kbroker.task import Attempt
from tests.integration.guarantees.snipper import Snipper
from tests.integration.scene import Scene, key, poll
from tests.integration.stack import Run, Stack

SCRIPTS = (
    *("publish", "adopt", "withdraw", "finish"),  # the executor's
    *("grant", "apply", "park", "drain", "unpark", "bury"),  # the launchers' and the watchers'
    *("watch", "condemn", "lease"),
)
FULL = "exceeded quota: full, requested: pods=1, used: pods=9, limited: pods=9"
NO_IMAGE = {"image": "nowhere.invalid/busybox:1"}
BAD = {"condemned": Cause.IMAGE_PULL, "unreadable": Cause.DEAD}
GOOD = ("n0", "n1", "n2", "parked")


def unreadable(message: LaunchMessage) -> dict[str, Any]:
    """The message as a kbroker with a bug would write it."""
    return {**WRITTEN(message), "command": "not a list"}


WRITTEN = LaunchMessage.as_dict


def want_everything(tasks: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that bring every script about."""
    refusal = {"status": 403, "reason": "Forbidden", "message": FULL}
    match = {"verb": "create", "resource": "pods", "name_prefix": "dag-parked"}
    rule = {"match": match, "action": refusal, "name": "full"}
    tasks.stack.cluster.admin.post("/_local/faults", rule)
    with monkeypatch.context() as patch:
        patch.setattr(LaunchMessage, "as_dict", unreadable)
        tasks.submit("unreadable")
        tasks.until("it is published", lambda: not tasks.executor.queued_tasks)
    tasks.submit(*GOOD)
    tasks.submit("revoked", seconds=60)
    tasks.submit("adopted", seconds=2)
    tasks.want("condemned", ["true"], executor_config=NO_IMAGE)
    tasks.until(
        "it is parked", lambda: "quota" in (tasks.executor.waiting(tasks.key("parked")) or "")
    )
    tasks.stack.cluster.admin.request("DELETE", "/_local/faults", {"name": "full"})


def test_every_script_whose_reply_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "core__relaunch_limit": 0,
        "kubernetes__create_window": 1.5,
        "launcher__park_lease": 5.0,  # what was drained falls due again after this
    }
    with (
        Stack(tmp_path, **settings) as stack,
        Snipper(stack.redis_server.url, **dict.fromkeys(SCRIPTS, 1)) as snipper,
    ):
        through = {"broker__url": snipper.url}
        stack.watcher(**through)
        stack.launcher(**through)
        stack.until_led()
        first = Run(stack, stack.executor(**through))
        want_everything(first, monkeypatch)
        first.until("they run", lambda: {"revoked", "adopted"} <= set(stack.starts()))
        first.executor.revoke(first.key("revoked"))
        first.tasks.remove("revoked")
        first.until("these are final", lambda: {*GOOD, *BAD} <= set(first.finals))
        first.until("this is over", lambda: first.executor.queued_tasks == {})
        for _ in range(3):
            first.until("Redis is back", lambda: not first.executor._redis.away)
            first.beat()

        # It dies, and another one adopts what it left.
        second = Run(stack, stack.executor("exec-2", **through))
        request = LaunchRequest(second.key("adopted"), ["sh"], "run-adopted")
        lease = stack.keys.executor("exec-1")
        poll("its lease ends", lambda: not stack.redis.exists(lease))
        poll("adopted", lambda: second.executor.adopt([request]) == [])
        second.tasks.append("adopted")
        second.finish()
        second.until("every pod is gone", lambda: not pods(stack))
        lost = +snipper.lost
        stats = stack.cluster.admin.get("/_local/stats")
        dead = stack.redis.xlen(stack.keys.dead)
        second.executor.end()
        stack.kill()

    assert lost == dict.fromkeys(SCRIPTS, 1)
    assert dead == 1
    starts = collections.Counter([*GOOD, "adopted", "revoked"])
    assert (stats["create pods 201"], stats["delete pods 200"]) == (len(starts) + 1,) * 2
    assert stack.starts() == starts
    for task in GOOD:
        assert first.states[task][-1] == "success"
        assert max(collections.Counter(first.states[task]).values()) == 1, first.states[task]
    for task, cause in BAD.items():
        assert first.states[task] in (["queued", "failed"], ["failed"])
        assert [outcome.cause for _, outcome in first.finals[task]] == [cause]
    assert second.states["adopted"][-1] == "success"
    assert [s for s, _ in second.finals["adopted"]] == ["success"]


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url, kubernetes__create_window=0.2, kubernetes__retry_budget=0.1)
    scene.lead()
    return scene


def finished(scene: Scene, executor: KubernetesExecutor) -> Attempt:
    """A launch that has succeeded; its name needs not be held any more."""
    executor.execute_async(key(), ["true"])
    executor.heartbeat()
    attempt = scene.queued()[0].attempt
    scene.launched(attempt)
    time.sleep(0.2)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0, started=Started.YES))
    return attempt


def beat(executor: KubernetesExecutor) -> list[tuple[str, Any]]:
    """One turn, however short ago Redis failed; what it says."""
    executor._redis._rest_until = 0.0
    executor.heartbeat()
    return list(executor.get_event_buffer().values())


def test_a_launch_that_was_published_twice_is_queued_once(scene: Scene, redis_url: str) -> None:
    with Snipper(redis_url, publish=2) as snipper:
        executor = scene.executor(broker__url=snipper.url)
        executor.execute_async(key(), ["true"])
        said = [state for _ in range(5) for state, _ in beat(executor)]
        assert snipper.lost == {"publish": 2}
        assert said == ["queued"]
        assert len(scene.queued()) == 1
        executor.end()


def test_a_pod_whose_end_was_told_twice_is_removed_once(scene: Scene, redis_url: str) -> None:
    with Snipper(redis_url, finish=2) as snipper:
        executor = scene.executor(broker__url=snipper.url)
        attempt = finished(scene, executor)
        said = [state for _ in range(5) for state, _ in beat(executor)]
        assert snipper.lost == {"finish": 2}
        assert said == ["success"]
        assert [removal["removal"] for removal in scene.removals()] == ["delete"]
        assert scene.record(attempt)["state"] == "final"
        executor.end()


def test_a_parked_message_that_was_buried_twice_is_dead_once(scene: Scene, redis_url: str) -> None:
    executor = scene.executor()
    executor.execute_async(key(), ["true"])
    executor.heartbeat()
    attempt = scene.queued()[0].attempt
    event = scene.pod(attempt, PodState.FAILED, uid=None, cause=Cause.DEAD, started=Started.NEVER)
    bury = scene.records.bury("parked", "", "it is garbage", b"{}", event)
    assert [run(scene.redis, [bury]) for _ in range(2)] == [[True], [False]]
    assert scene.redis.xlen(scene.keys.dead) == 1
    assert scene.redis.xlen(scene.keys.results("exec-1")) == 1
    executor.end()


def test_what_was_read_is_deleted_however_often_that_fails(
    scene: Scene, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TcpProxy("127.0.0.1", urlsplit(redis_url).port or 0) as proxy:
        executor = scene.executor(broker__url=f"redis://127.0.0.1:{proxy.port}/0")
        sync = executor.scheduler.sync
        cut = iter([False, True, True])  # it is read, then not deleted twice

        def cut_off() -> int:
            if next(cut, False):
                proxy.cut_requests(1)
            return sync()

        finished(scene, executor)
        monkeypatch.setattr(executor.scheduler, "sync", cut_off)
        said = [state for _ in range(6) for state, _ in beat(executor)]
        assert proxy.counts["requests_to_cut"] == 2
        assert said == ["success"]
        assert scene.redis.xlen(scene.keys.results("exec-1")) == 0
        executor.end()


def test_a_removal_asked_for_again_is_not_forgotten(scene: Scene, redis_url: str) -> None:
    with Snipper(redis_url, delete_pod=1) as snipper:
        now = time.monotonic()
        config = KubeConfig.from_values(**{**scene.overrides(), "broker.url": snipper.url})
        executor = KubernetesExecutor(config, monotonic=lambda: now)
        executor.start()
        finished(scene, executor)
        for _ in range(3):
            beat(executor)
        asked = len(scene.removals())
        assert asked == 1
        for _ in range(3):  # the pod is still there after a minute, and after two
            now += ASK_AGAIN + 2
            beat(executor)
        assert snipper.lost == {"delete_pod": 1}
        assert len(scene.removals()) == 4
        executor.end()


def test_a_scheduler_hears_once_that_a_task_runs(scene: Scene) -> None:
    executor = scene.executor()
    executor.execute_async(key(), ["true"])
    executor.heartbeat()
    attempt = scene.queued()[0].attempt
    scene.launched(attempt)
    assert [state for state, _ in beat(executor)] == ["running"]
    scene.watched(scene.pod(attempt, PodState.RUNNING, started=Started.YES))
    assert beat(executor) == []
    executor.scheduler.rewind()  # as after a lost lease
    scene.redis.xadd(
        scene.keys.results("exec-1"),
        {"event": scene.pod(attempt, PodState.RUNNING, started=Started.YES).encode()},
    )
    assert beat(executor) == []
    executor.end()


def pods(stack: Stack) -> int:
    """How many pods the picture has."""
    count: int = stack.redis.hlen(stack.keys.pods("default", "default"))
    return count
