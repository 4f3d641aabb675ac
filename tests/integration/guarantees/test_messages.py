"""Messages that are too new, too old, or none at all: what becomes of their tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import kbroker.message
from kbroker.dead_letters import letters
from kbroker.event import Cause
from kbroker.message import LaunchMessage
from kbroker.task import Launch
from tests.integration.stack import Run, Stack

NO_IMAGE = {"image": "nowhere.invalid/busybox:1"}
FULL = "exceeded quota: full, requested: pods=1, used: pods=9, limited: pods=9"
# Its first attempt has failed by then, on a busy machine too.
BETWEEN = 10.0
WRITTEN = LaunchMessage.as_dict


def unreadable(message: LaunchMessage) -> dict[str, Any]:
    """The message as a kbroker with a bug would write it."""
    return {**WRITTEN(message), "command": "not a list"}


def too_new(message: LaunchMessage) -> dict[str, Any]:
    """The message as the next release would write it."""
    return {**WRITTEN(message), "v": kbroker.message.SCHEMA + 1}


class Messages(Run):
    """Tasks whose messages are out of the ordinary."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack, stack.executor())
        self.queue = stack.keys.launch_queue("default", "normal")
        self.dead_then = 0

    def until_final(self, *tasks: str) -> None:
        """Beat until these are final."""
        self.until("they are final", lambda: self.finals.keys() >= set(tasks))

    def spoil(self, task: str) -> None:
        """Put nonsense in the place of this task's message."""
        redis = self.stack.redis
        launch = Launch("kbroker", self.key(task), f"{self.name}-{task}")
        record = self.stack.keys.task(launch.digest)
        redis.xdel(self.queue, redis.hget(record, "entry"))
        redis.hset(record, "entry", redis.xadd(self.queue, {"message": b"nonsense"}))

    def publish(self, patch: pytest.MonkeyPatch) -> None:
        """Publish what no launcher has seen yet."""
        self.want("late", self.stack.command("late"), expires_at=time.time() + 0.3)
        self.submit("nonsense")
        self.beat()
        self.spoil("nonsense")
        with patch.context() as newer:
            newer.setattr(LaunchMessage, "as_dict", too_new)
            self.submit("newer")
            self.beat()
        with patch.context() as broken:
            broken.setattr(LaunchMessage, "as_dict", unreadable)
            self.submit("unreadable")
            self.beat()
        time.sleep(0.4)

    def launch(self) -> None:
        """Let them be launched, and what waits too long."""
        full = {"status": 403, "reason": "Forbidden", "message": FULL}
        match = {"verb": "create", "resource": "pods", "name_prefix": "dag-parked"}
        self.stack.cluster.admin.post("/_local/faults", {"match": match, "action": full})
        self.stack.launcher()
        now = time.time()
        self.want("parked", self.stack.command("parked"), expires_at=now + 1)
        self.want("between", ["true"], executor_config=NO_IMAGE, expires_at=now + BETWEEN)
        waiting, between = self.executor.waiting, self.key("between")
        self.until("its first attempt fails", lambda: waiting(between) == "waits to be published")
        while time.time() < now + BETWEEN + 0.1:  # nothing is published meanwhile
            self.executor.sync()
            time.sleep(0.05)
        self.until_final("late", "nonsense", "unreadable", "parked", "between")
        # A task is final a moment before the message that told of it is acknowledged.
        self.until("one message is left", lambda: self.stack.redis.xlen(self.queue) == 1)
        self.dead_then = self.stack.redis.xlen(self.stack.keys.dead)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Messages]:
    """Every message but the one that is too new has come to its end."""
    settings = {
        "broker__redelivery_after": 1.0,
        "broker__max_deliveries": 1,
        "kubernetes__create_window": 1.5,
        "kubernetes__retry_budget": 1.0,
    }
    with Stack(tmp_path_factory.mktemp("stack"), **settings) as stack:
        stack.watcher()
        stack.until_led()
        run = Messages(stack)
        with pytest.MonkeyPatch.context() as patch:
            run.publish(patch)
        run.launch()
        yield run
        run.executor.end()
        stack.kill()


@pytest.mark.parametrize("task", ["late", "parked", "between"])
def test_too_late_to_be_launched(run: Messages, task: str) -> None:
    ((state, outcome),) = run.finals[task]
    assert (state, outcome.cause) == ("failed", Cause.EXPIRED)
    assert outcome.message.startswith("not launched: it waited ")
    assert outcome.message.endswith(
        {"late": "limit 0.3 s", "parked": "limit 1.0 s", "between": f"limit {BETWEEN} s"}[task]
    )
    assert outcome.attempts == (2 if task == "between" else 1)
    assert run.stack.starts()[task] == 0


def test_garbage_with_a_readable_envelope_fails_its_task(run: Messages) -> None:
    ((state, outcome),) = run.finals["unreadable"]
    assert (state, outcome.cause) == ("failed", Cause.DEAD)
    assert "its launch message cannot be read" in outcome.message
    assert "command must be a non-empty list" in outcome.message
    assert run.stack.starts()["unreadable"] == 0


def test_a_task_whose_message_became_garbage_is_published_again(run: Messages) -> None:
    assert [state for state, _ in run.finals["nonsense"]] == ["success"]
    assert run.stack.starts()["nonsense"] == 1


def test_garbage_is_kept_with_its_reason_and_dies_once(run: Messages) -> None:
    dead = letters(run.stack.redis, run.stack.keys)
    assert [letter.raw == b"nonsense" for letter in dead] == [True, False]
    assert "unreadable" in dead[1].raw.decode()
    assert all(letter.reason for letter in dead)
    assert run.dead_then == 2


def test_a_newer_message_waits_for_a_newer_launcher(run: Messages) -> None:
    redis = run.stack.redis
    ((entry, _),) = redis.xrange(run.queue)  # after longer than a launcher may keep it
    assert run.executor.running == {run.key("newer")}
    assert run.executor.waiting(run.key("newer")) == "waits for a launcher"
    (pending,) = redis.xpending_range(run.queue, "launchers", "-", "+", 10)
    assert (pending["message_id"], pending["times_delivered"] <= 1) == (entry, True)
    run.stack.start(
        *("dramatiq", "tests.integration.guarantees.newer_launcher"),
        *("--processes", "1", "--threads", "2"),
    )
    run.until_final("newer")
    assert [state for state, _ in run.finals["newer"]] == ["success"]
    assert run.stack.starts()["newer"] == 1


def test_nothing_was_published_for_ever(run: Messages) -> None:
    assert run.stack.redis.xlen(run.stack.keys.dead) == run.dead_then
    assert run.executor.running == set()
