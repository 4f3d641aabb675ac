"""A task's log through Redis: whoever asks, whatever stands in the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kbroker.event import Cause, PodState, Started
from kbroker.keys import LAUNCHERS_GROUP
from kbroker.launch_reply import Granted
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.log_message import LogAnswer, LogRequest
from kbroker.record_scripts import launch_item
from kbroker.redis_client import connect, run
from kbroker.task import Attempt, Launch
from kbroker.task_log import TaskLog, task_log
from tests.integration.scene import Scene, failed, key, poll

NOBODY = "No launcher of cluster default answered within 0.3 s."


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url)
    scene.lead()
    return scene


@pytest.fixture
def attempt(scene: Scene) -> Attempt:
    """Of a task that was published."""
    executor = scene.executor(core__executor_lease=60.0)
    executor.execute_async(key(), ["echo", "s3cret"], launch_id="l-1")
    executor.heartbeat()
    return scene.queued()[0].attempt


def ask(scene: Scene, attempt: Attempt, wait: float = 0.3, **more: Any) -> TaskLog:
    began = time.monotonic()
    log = task_log(scene.redis, scene.config, attempt.launch, wait=wait, **more)
    assert time.monotonic() - began < wait + 1
    assert "s3cret" not in repr(log)
    return log


def empty(scene: Scene) -> bool:
    """Whether nothing is left of any request."""
    patterns = (scene.keys.log_queue("*"), scene.keys.reply("*"))
    return not any(scene.redis.keys(pattern.replace("{", "\\{")) for pattern in patterns)


class Launcher:
    """Takes one request and answers it with this; with nothing it gives no answer."""

    def __init__(self, scene: Scene, answer: bytes | None) -> None:
        self.scene = scene
        self.answer = answer
        self.request: LogRequest | None = None
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Launcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _serve(self) -> None:
        popped = self.scene.redis.blpop([self.scene.keys.log_queue("default")], timeout=5)
        self.request = LogRequest.decode(popped[1])
        if self.answer is not None:
            self.scene.redis.rpush(self.scene.keys.reply(self.request.reply), self.answer)


class TestBeforeThereIsAPod:
    """Then nobody is asked, and nobody has to be there."""

    def test_nothing_is_recorded(self, scene: Scene) -> None:
        log = task_log(scene.redis, scene.config, Launch("kbroker", key("never"), "l-9"))
        assert log.text == log.source == ""
        (note,) = log.notes
        assert note.startswith("Nothing is recorded of dag.never run-1 try 1, launch l-9: it was")
        assert "ended more than 24 h ago (broker.record_ttl)" in note

    def test_queued_without_a_launcher(self, scene: Scene, attempt: Attempt) -> None:
        log = ask(scene, attempt)
        assert (log.text, log.source) == ("", "")
        assert log.notes == (
            f"No launcher is running for queue {scene.keys.launch_queue('default', 'normal')}: "
            "start one with kbroker launcher.",
        )

    def test_parked_for_quota(self, scene: Scene, attempt: Attempt) -> None:
        event = scene.pod(attempt, PodState.WAITING, uid=None, resource_version=0)
        event = event.changed(cause=Cause.QUOTA, message="no room in the namespace: pods=2")
        entry = (scene.keys.launch_queue("default", "normal"), scene.record(attempt)["entry"])
        item = launch_item(attempt)
        run(
            scene.redis,
            [scene.records.park("default", item, b"{}", 60.0, entry=entry, event=event)],
        )
        (note,) = ask(scene, attempt).notes
        assert note.startswith("It is parked: no room in the namespace: pods=2; launchers look")

    def test_granted_and_not_seen_yet(self, scene: Scene, attempt: Attempt) -> None:
        assert isinstance(scene.take(attempt), Granted)
        (note,) = ask(scene, attempt).notes
        assert note.startswith("Launcher scene may have created its pod, which nobody has seen yet")

    @pytest.fixture(autouse=True)
    def _nothing_was_asked(self, scene: Scene) -> Iterator[None]:
        yield
        assert empty(scene)


class TestWithALauncher:
    def test_its_answer(self, scene: Scene, attempt: Attempt) -> None:
        scene.launched(attempt)
        answer = LogAnswer(True, "1\n2\n", PodState.RUNNING)
        with Launcher(scene, answer.encode()) as launcher:
            log = ask(scene, attempt, wait=5.0, lines=7)
        assert log == TaskLog(
            "1\n2\n",
            f"pod default/{scene.record(attempt)['pod']}, container base, last 2 lines",
            ("It is running.",),
        )
        request = launcher.request
        assert request is not None
        assert (request.deployment, request.cluster, request.namespace, request.lines) == (
            "kbroker",
            "default",
            "default",
            7,
        )
        assert (request.pod, request.uid) == (
            scene.record(attempt)["pod"],
            scene.record(attempt)["uid"],
        )
        now = scene.redis.time()[0] * 1000
        assert now < request.until <= now + 6000
        assert empty(scene)

    def test_a_finished_pod_that_is_gone(self, scene: Scene, attempt: Attempt) -> None:
        scene.launched(attempt)
        scene.watched(failed(scene, attempt, Cause.OOM_KILLED, Started.YES).changed(exit_code=137))
        with Launcher(scene, LogAnswer(False).encode()):
            log = ask(scene, attempt, wait=5.0)
        assert log.notes == (
            "It used more memory than its limit and was killed with exit code 137: it was "
            "oom_killed.",
            "Its pod no longer exists, and its log went with it.",
        )

    def test_one_that_dies_with_it(self, scene: Scene, attempt: Attempt) -> None:
        scene.launched(attempt)
        with Launcher(scene, None):
            log = ask(scene, attempt)
        assert log.notes == (
            "It is running.",
            "A launcher was asked for its log and gave no answer within 0.3 s: try again.",
        )
        assert empty(scene)

    def test_a_newer_one_that_cannot_be_understood(self, scene: Scene, attempt: Attempt) -> None:
        scene.launched(attempt)
        with Launcher(scene, b'{"v": 99}'):
            log = ask(scene, attempt, wait=5.0)
        assert log.notes[1].startswith("The launcher's answer cannot be read: log answer of schema")

    def test_a_client_less_patient_than_the_asker(self, scene: Scene, attempt: Attempt) -> None:
        """To wait for an answer is not to wait for Redis."""
        scene.launched(attempt)
        hasty = connect(scene.config.broker.url, 0.2)
        assert (
            task_log(hasty, scene.config, attempt.launch, wait=0.7).notes[1].startswith("No launch")
        )
        with Launcher(scene, LogAnswer(True, "x", PodState.RUNNING).encode()):
            assert task_log(hasty, scene.config, attempt.launch, wait=5.0).text == "x"


class TestWithoutALauncher:
    @pytest.fixture(autouse=True)
    def _running(self, scene: Scene, attempt: Attempt) -> Iterator[None]:
        scene.launched(attempt)
        yield
        assert empty(scene)

    def looked(self, scene: Scene) -> None:
        """A launcher looks for work, as all do every two seconds."""
        queue = scene.keys.launch_queue("default", "normal")
        scene.redis.xgroup_create(queue, LAUNCHERS_GROUP, id="0", mkstream=True)
        scene.redis.xreadgroup(LAUNCHERS_GROUP, "l-1", {queue: ">"}, count=1)

    def test_there_is_none(self, scene: Scene, attempt: Attempt) -> None:
        queue = scene.keys.launch_queue("default", "normal")
        log = ask(scene, attempt)
        assert log.source == f"pod default/{scene.record(attempt)['pod']}"
        assert log.notes == (
            "It is running.",
            f"{NOBODY} No launcher is running for queue {queue}: start one with kbroker launcher.",
        )

    def test_there_are_some_that_do_not_take_it(self, scene: Scene, attempt: Attempt) -> None:
        self.looked(scene)
        assert ask(scene, attempt).notes[1] == (
            f"{NOBODY} There are launchers, but they are busy with other logs, or older than this "
            "kbroker: try again, and upgrade launchers first."
        )

    def test_the_queue_does_not_fill(self, scene: Scene, attempt: Attempt) -> None:
        queue = scene.keys.log_queue("default")
        scene.redis.rpush(queue, *(f"left {n}" for n in range(1000)))
        began = time.monotonic()
        note = ask(scene, attempt, wait=60.0).notes[1]
        assert time.monotonic() - began < 5
        assert note.startswith("Too many requests for logs wait. No launcher is running")
        assert scene.redis.llen(queue) == 1000
        scene.redis.ltrim(queue, 0, 998)
        ask(scene, attempt)
        # Those of others stay, for as long as anybody may wait for them.
        assert scene.redis.llen(queue) == 999
        assert 0 < scene.redis.pttl(queue) <= 60_300
        scene.redis.delete(queue)


class TestWithoutRedis:
    def test_from_the_beginning(self, scene: Scene, unused_port: int) -> None:
        launch = Launch("kbroker", key(), "l-1")
        log = task_log(connect(f"redis://127.0.0.1:{unused_port}", 1.0), scene.config, launch)
        (note,) = log.notes
        assert note.startswith("The log cannot be asked for: Redis is not available: ")

    def test_while_waiting(self) -> None:
        with EmbeddedRedis() as server:
            scene = Scene(server.url)
            scene.lead()
            executor = scene.executor(core__executor_lease=60.0)
            executor.execute_async(key(), ["true"], launch_id="l-1")
            executor.heartbeat()
            attempt = scene.queued()[0].attempt
            scene.launched(attempt)
            found: list[TaskLog] = []
            asking = threading.Thread(target=lambda: found.append(ask(scene, attempt, wait=30.0)))
            asking.start()
            poll("it is asked", lambda: scene.redis.llen(scene.keys.log_queue("default")))
            server.stop()
            asking.join(10)
        (log,) = found
        assert log.notes[0] == "It is running."
        assert log.notes[1].startswith("The log cannot be asked for: Redis is not available: ")
