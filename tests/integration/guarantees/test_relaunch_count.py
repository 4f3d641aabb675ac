"""Failures before the start are repeated up to a limit, whoever dies between the attempts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kbroker.event import Outcome
from kbroker.executor import KubernetesExecutor
from kbroker.message import LaunchRequest
from kbroker.result_stream import read_picture
from kbroker.task import TaskKey
from tests.integration.scene import poll
from tests.integration.stack import Stack

PLACE = ("default", "default")
PODS = "/api/v1/namespaces/default/pods"
LIMIT = 3
WAITS = "waits to be published"
KEY = TaskKey("dag", "task", "run", try_number=4)
UNSCHEDULED = {"pod_override": {"spec": {"schedulerName": "nobody"}}}
REQUEST = LaunchRequest(KEY, ["true"], "launch", executor_config=UNSCHEDULED)


class World:
    """One task whose pods are deleted before they are bound, and executors that come and go."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.pods: list[dict[str, Any]] = []
        self.finals: list[tuple[TaskKey, str, Outcome]] = []
        self.start_roles()

    def start_roles(self) -> None:
        """A launcher and a watcher."""
        self.launcher, self.watcher = self.stack.launcher(), self.stack.watcher()
        self.stack.until_led()

    def adopted_by(self, executor_id: str) -> KubernetesExecutor:
        """The executor before it was killed; this one takes over."""
        executor = self.stack.executor(executor_id)
        poll("adopted", lambda: executor.adopt([REQUEST]) == [])
        return executor

    def beat(self, executor: KubernetesExecutor) -> None:
        """One turn."""
        executor.heartbeat()
        for key, (state, info) in executor.get_event_buffer().items():
            if isinstance(info, Outcome):
                self.finals.append((key, state, info))
        time.sleep(0.02)

    def until_pod(self, executor: KubernetesExecutor) -> None:
        """Beat until the next attempt's pod is there, and the watcher has seen it."""
        known = {pod["metadata"]["uid"] for pod in self.pods}

        def new() -> list[dict[str, Any]]:
            self.beat(executor)
            seen = read_picture(self.stack.redis, self.stack.keys.pods(*PLACE))
            items = self.stack.cluster.admin.get(PODS)["items"]
            fresh = [pod for pod in items if pod["metadata"]["uid"] not in known]
            return [pod for pod in fresh if pod["metadata"]["name"] in seen]

        self.pods += poll("the next pod", new)

    def delete_pod(self) -> None:
        """The newest pod is deleted before it is bound; the watcher has seen it."""
        name = self.pods[-1]["metadata"]["name"]
        self.stack.cluster.admin.delete(f"{PODS}/{name}?gracePeriodSeconds=0")
        picture = self.stack.keys.pods(*PLACE)
        poll("seen", lambda: read_picture(self.stack.redis, picture)[name].final)


def test_the_count_outlives_every_process(tmp_path: Path) -> None:
    settings = {
        "core__relaunch_limit": LIMIT,
        "core__executor_lease": 0.4,
        "core__reconcile_interval": 0.1,
        "kubernetes__create_window": 0.7,
        "kubernetes__retry_budget": 0.5,
        "watcher__lease": 0.6,
    }
    with Stack(tmp_path, **settings) as stack:
        world = World(stack)
        first = stack.executor("exec-1")
        first.execute_async(KEY, REQUEST.command, None, UNSCHEDULED, launch_id="launch")
        world.until_pod(first)
        world.delete_pod()
        # It dies before it has heard that the first attempt failed.
        second = world.adopted_by("exec-2")
        world.until_pod(second)
        world.delete_pod()
        poll("it has heard", lambda: world.beat(second) or second.waiting(KEY) == WAITS)
        # All die: the third attempt was only in the executor's memory.
        world.launcher.kill()
        world.watcher.kill()
        third = world.adopted_by("exec-3")
        queue = stack.keys.launch_queue("default", "normal")
        poll("published", lambda: world.beat(third) or stack.redis.xlen(queue))
        # It dies while the third attempt is on its queue.
        fourth = world.adopted_by("exec-3")
        world.start_roles()
        world.until_pod(fourth)
        world.delete_pod()
        world.until_pod(fourth)
        world.delete_pod()
        poll("over", lambda: world.beat(fourth) or world.finals)
        for _ in range(10):
            world.beat(fourth)

        ((key, state, outcome),) = world.finals
        assert (key, state, outcome.attempts) == (KEY, "failed", LIMIT + 1)
        created = stack.cluster.admin.get("/_local/stats")["create pods 201"]
        assert created == len(world.pods) == LIMIT + 1
        labels = [pod["metadata"]["labels"] for pod in world.pods]
        assert [label["try_number"] for label in labels] == [str(KEY.try_number)] * (LIMIT + 1)
        attempts = [pod["metadata"]["annotations"]["kbroker/attempt"] for pod in world.pods]
        assert attempts == ["1", "2", "3", "4"]
        assert fourth.running == set()
        stack.kill()
